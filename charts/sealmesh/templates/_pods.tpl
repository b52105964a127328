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
{{- if $values.spread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "sealmesh.selector" . | nindent 8 }}
{{- if not $values.affinity }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "sealmesh.selector" . | nindent 12 }}
{{- end }}
{{- end }}
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
priorityClassName: {{ . | quote }}
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

{{/* auth and gatekeeper say how they are at a socket of their own: a kubelet's plain port would be one more listener. */}}
{{- define "sealmesh.probes" -}}
startupProbe:
  exec: {command: [python, -m, services.probe, alive, /tmp/probe]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  exec: {command: [python, -m, services.probe, ready, /tmp/probe]}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe: # whoever waits for a database or for auth is alive
  exec: {command: [python, -m, services.probe, alive, /tmp/probe]}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{/* A service for each replica: nodes are registered with every gatekeeper, and go to the next auth by themselves. */}}
{{- define "sealmesh.replicaServices" -}}
{{- $part := . -}}
{{- range $number := until (index .root.Values .part "replicas" | int) }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "sealmesh.partName" $part }}-{{ $number }}
  namespace: {{ $part.root.Release.Namespace | quote }}
  labels: {{- include "sealmesh.labels" $part | nindent 4 }}
spec:
  publishNotReadyAddresses: true # nodes know better whether it answers them
  selector:
    {{- include "sealmesh.selector" $part | nindent 4 }}
    statefulset.kubernetes.io/pod-name: {{ include "sealmesh.partName" $part }}-{{ $number }}
  ports:
    {{- range $name, $port := $part.ports }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name | splitList "-" | last }}}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "sealmesh.budget" -}}
{{- with (index .root.Values .part).minAvailable }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "sealmesh.metadata" $ | nindent 2 }}
spec:
  minAvailable: {{ . | int }}
  unhealthyPodEvictionPolicy: AlwaysAllow # who waits for a database that is away keeps no node from being drained
  selector:
    matchLabels: {{- include "sealmesh.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}
