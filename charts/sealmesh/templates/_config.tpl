{{/* Values that the schema cannot judge. */}}
{{- define "sealmesh.check" -}}
{{- if not .Values.trustDomain -}}
{{- fail "trustDomain is missing: set it to the name of your trust domain, such as shop.example" -}}
{{- end -}}
{{- include "sealmesh.checkDatabase" . -}}
{{- if lt (int .Values.auth.caSeconds) (mul 6 (int .Values.auth.svidSeconds) | int) -}}
{{- fail "auth.caSeconds: a CA has to last six times as long as a certificate (auth.svidSeconds), or longer" -}}
{{- end -}}
{{- $injector := .Values.injector -}}
{{- $prometheus := .Values.telemetry.prometheus -}}
{{- $taken := list 7700 7701 7702 7703 (int $injector.sidecar.inboundPort) (int $injector.sidecar.outboundPort) (int $injector.sidecar.healthPort) -}}
{{- if and $prometheus.enabled (has (int $prometheus.port) $taken) -}}
{{- fail "telemetry.prometheus.port: another port of auth, gatekeeper or the sidecar is the same: choose another" -}}
{{- end -}}
{{- $sidecar := list (int $injector.sidecar.inboundPort) (int $injector.sidecar.outboundPort) (int $injector.sidecar.healthPort) -}}
{{- if lt (len (uniq $sidecar)) 3 -}}
{{- fail "injector.sidecar: inboundPort, outboundPort and healthPort have to be three: choose others" -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" (include "sealmesh.fullname" .)) -}}
{{- fail (printf "%s: services begin with a letter: call the release otherwise, or set fullnameOverride" (include "sealmesh.fullname" .)) -}}
{{- end -}}
{{- if has .Values.joinConfigMap (list "kube-root-ca.crt" (include "sealmesh.partName" (dict "part" "config" "root" .))) -}}
{{- fail (printf "joinConfigMap: %s is another ConfigMap: choose another name" .Values.joinConfigMap) -}}
{{- end -}}
{{- range .Values.rules -}}
{{- if and (regexMatch "^mesh([.]|$)" .service) (not (has .service (list "mesh.gatekeeper" "mesh.operator"))) -}}
{{- fail (printf "rules: %s is a name of the mesh itself: choose another" .service) -}}
{{- end -}}
{{- end -}}
{{- if and $injector.certManager.issuerRef (not $injector.certManager.enabled) -}}
{{- fail "injector.certManager.issuerRef: cert-manager is not asked: set injector.certManager.enabled, or leave this empty" -}}
{{- end -}}
{{- if and .Values.operator.subjects (not .Values.operator.enabled) -}}
{{- fail "operator.subjects: there is no account for them: set operator.enabled, or leave this empty" -}}
{{- end -}}
{{- range .Values.operator.subjects -}}
{{- if and (eq .kind "ServiceAccount") (not .namespace) -}}
{{- fail (printf "operator.subjects: service account %s: add its namespace" .name) -}}
{{- end -}}
{{- end -}}
{{- range $part := list "auth" "gatekeeper" "injector" -}}
{{- $values := index $.Values $part -}}
{{- if and $values.minAvailable (ge (int $values.minAvailable) (int $values.replicas)) -}}
{{- fail (printf "%s.minAvailable: it has to be less than %s.replicas, or no node can be drained" $part $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sealmesh.checkDatabase" -}}
{{- $auth := .Values.auth -}}
{{- $several := gt (int $auth.replicas) 1 -}}
{{- if .Values.database.existingSecret -}}
{{- if not $auth.kek.existingSecret -}}
{{- fail "auth.kek.existingSecret is missing: auths on PostgreSQL begin with one KEK: make it with mesh kek new, and a Secret of that" -}}
{{- end -}}
{{- if $auth.kms -}}
{{- fail "auth.kms: with database.existingSecret the KEK is in auth.kek.existingSecret: make it with mesh kek new --kms, and leave this empty" -}}
{{- end -}}
{{- if and $several $auth.persistence.existingClaim -}}
{{- fail "auth.persistence.existingClaim: each of several auths has a volume of its own: leave it empty" -}}
{{- end -}}
{{- else -}}
{{- if $several -}}
{{- fail "auth.replicas: several auths need PostgreSQL, and SQLite is one's: set database.existingSecret, or this to 1" -}}
{{- end -}}
{{- if or $auth.kek.existingSecret .Values.database.caSecret -}}
{{- fail "auth.kek.existingSecret and database.caSecret are for PostgreSQL: set database.existingSecret, or leave them empty" -}}
{{- end -}}
{{- end -}}
{{- $gatekeeper := .Values.gatekeeper -}}
{{- if and (gt (int $gatekeeper.replicas) 1) $gatekeeper.decisions.persistence.existingClaim -}}
{{- fail "gatekeeper.decisions.persistence.existingClaim: each of several gatekeepers has a volume of its own: leave it empty" -}}
{{- end -}}
{{- end -}}

{{- define "sealmesh.rules" -}}
- namespace: {{ .Release.Namespace | quote }}
  serviceAccount: {{ include "sealmesh.partName" (dict "part" "gatekeeper" "root" .) }}
  service: mesh.gatekeeper
{{- if .Values.operator.enabled }}
- namespace: {{ .Release.Namespace | quote }}
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
  namespace: {{ .Release.Namespace | quote }}
  configMap: {{ .Values.joinConfigMap | quote }}
  rules: {{- include "sealmesh.rules" . | nindent 4 }}
{{- if .Values.injector.enabled }}
{{- $sidecar := .Values.injector.sidecar }}
sidecars.yaml: |
  image: {{ include "sealmesh.image" (dict "image" "sidecar" "root" .) | quote }}
  imagePullPolicy: {{ .Values.images.sidecar.pullPolicy }}
  auth: {{ $auth }}:7700
  audience: {{ include "sealmesh.audience" . | quote }}
  tokenSeconds: {{ $sidecar.tokenSeconds | int }}
  joinConfigMap: {{ .Values.joinConfigMap | quote }}
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
