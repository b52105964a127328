{{/* What every pod of the chart has: security, and where it may run. (dict "part" "auth" "root" $) */}}
{{- define "sealmesh.podSecurity" -}}
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch # never loosen the modes of files that are there: auth refuses a loose key file
runAsGroup: 65532
runAsNonRoot: true
runAsUser: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "sealmesh.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{- define "sealmesh.container" -}}
image: {{ include "sealmesh.image" (dict "image" "control" "root" .root) }}
imagePullPolicy: {{ .root.Values.images.control.pullPolicy }}
securityContext: {{- include "sealmesh.containerSecurity" . | nindent 2 }}
{{- end -}}

{{/* Of a mapping of names to values. */}}
{{- define "sealmesh.env" -}}
{{- with . -}}
env:
  {{- range $name, $value := . }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* OTEL_* variables: where auth, gatekeeper and sidecars tell of what they do. */}}
{{- define "sealmesh.telemetry" -}}
{{- $telemetry := .Values.telemetry -}}
{{- $env := dict -}}
{{- with $telemetry.otlpEndpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . -}}
{{- end -}}
{{- if $telemetry.prometheus.enabled -}}
{{- $_ := set $env "OTEL_METRICS_EXPORTER" "prometheus" -}}
{{- $_ := set $env "OTEL_EXPORTER_PROMETHEUS_HOST" "0.0.0.0" -}}
{{- $_ := set $env "OTEL_EXPORTER_PROMETHEUS_PORT" ($telemetry.prometheus.port | int | toString) -}}
{{- end -}}
{{- with merge (dict) $telemetry.env $env -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- define "sealmesh.scheduling" -}}
{{- $values := index .root.Values .part -}}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "sealmesh.podMetadata" -}}
{{- $values := index .root.Values .part -}}
annotations:
  checksum/config: {{ include "sealmesh.config" .root | sha256sum }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "sealmesh.labels" . | nindent 2 }}
  sealmesh.dev/inject: disabled
{{- end -}}

{{/* Where an application looks at a port, for the kubelet. */}}
{{- define "sealmesh.probes" -}}
startupProbe:
  tcpSocket: {port: {{ .port }}}
  periodSeconds: 1
  failureThreshold: 120
readinessProbe:
  tcpSocket: {port: {{ .port }}}
  periodSeconds: 5
livenessProbe:
  tcpSocket: {port: {{ .port }}}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}
