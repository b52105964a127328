{{/* Values that the schema cannot judge. */}}
{{- define "sealmesh.check" -}}
{{- if not .Values.trustDomain -}}
{{- fail "trustDomain is missing: set it to the name of your trust domain, such as shop.example" -}}
{{- end -}}
{{- if gt (int .Values.auth.replicas) 1 -}}
{{- fail "auth.replicas: auth takes no database URL yet and keeps its state in SQLite: set it to 1" -}}
{{- end -}}
{{- if .Values.database.existingSecret -}}
{{- fail "database.existingSecret: auth takes no database URL yet: leave it empty" -}}
{{- end -}}
{{- if gt (int .Values.gatekeeper.replicas) 1 -}}
{{- fail "gatekeeper.replicas: nodes are registered with one gatekeeper: set it to 1" -}}
{{- end -}}
{{- if lt (int .Values.auth.caSeconds) (mul 6 (int .Values.auth.svidSeconds) | int) -}}
{{- fail "auth.caSeconds: a CA has to last six times as long as a certificate (auth.svidSeconds), or longer" -}}
{{- end -}}
{{- $injector := .Values.injector -}}
{{- $prometheus := .Values.telemetry.prometheus -}}
{{- $taken := list 7700 7701 7702 7703 (int $injector.sidecar.inboundPort) (int $injector.sidecar.outboundPort) (int $injector.sidecar.healthPort) -}}
{{- if and $prometheus.enabled (has (int $prometheus.port) $taken) -}}
{{- fail "telemetry.prometheus.port: another port of auth, gatekeeper or the sidecar is the same: choose another" -}}
{{- end -}}
{{- if and $injector.minAvailable (ge (int $injector.minAvailable) (int $injector.replicas)) -}}
{{- fail "injector.minAvailable: it has to be less than injector.replicas, or no node can be drained" -}}
{{- end -}}
{{- end -}}

{{- define "sealmesh.rules" -}}
- namespace: {{ .Release.Namespace }}
  serviceAccount: {{ include "sealmesh.partName" (dict "part" "gatekeeper" "root" .) }}
  service: mesh.gatekeeper
{{- if .Values.operator.enabled }}
- namespace: {{ .Release.Namespace }}
  serviceAccount: {{ include "sealmesh.partName" (dict "part" "operator" "root" .) }}
  service: mesh.operator
{{- end }}
{{- with .Values.rules }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sealmesh.config" -}}
{{- include "sealmesh.check" . -}}
{{- $auth := include "sealmesh.host" (dict "part" "auth" "root" .) -}}
addresses.json: |
  {"join": "{{ $auth }}:7700", "auth": "{{ $auth }}:7701", "gatekeeper": "{{ include "sealmesh.host" (dict "part" "gatekeeper" "root" .) }}:7702"}
auth.yaml: |
  audience: {{ include "sealmesh.audience" . | quote }}
  namespace: {{ .Release.Namespace }}
  configMap: {{ .Values.joinConfigMap }}
  rules: {{- include "sealmesh.rules" . | nindent 4 }}
{{- if .Values.injector.enabled }}
{{- $sidecar := .Values.injector.sidecar }}
sidecars.yaml: |
  image: {{ include "sealmesh.image" (dict "image" "sidecar" "root" .) | quote }}
  imagePullPolicy: {{ .Values.images.sidecar.pullPolicy }}
  auth: {{ $auth }}:7700
  audience: {{ include "sealmesh.audience" . | quote }}
  tokenSeconds: {{ $sidecar.tokenSeconds | int }}
  joinConfigMap: {{ .Values.joinConfigMap }}
  uid: {{ $sidecar.uid | int }}
  ports:
    inbound: {{ $sidecar.inboundPort | int }}
    outbound: {{ $sidecar.outboundPort | int }}
    health: {{ $sidecar.healthPort | int }}
  resources: {{- toYaml $sidecar.resources | nindent 4 }}
  {{- with include "sealmesh.telemetry" . }}
  env: {{- . | nindent 4 }}
  {{- end }}
  rules: {{- include "sealmesh.rules" . | nindent 4 }}
{{- end }}
{{- end -}}
