{{/* PostgreSQL, for several auths: the way there, and the certificate that the server is known by. */}}

{{/* The variables of auth, and of what makes its directory first: (dict "root" $ "first" true). */}}
{{- define "sealmesh.authEnv" -}}
{{- $values := .root.Values -}}
{{- $env := $values.auth.env -}}
{{- if not .first -}}
{{- $env = merge (dict) $env (include "sealmesh.telemetry" .root | fromYaml) -}}
{{- end -}}
{{- with $values.database -}}
{{- if .existingSecret -}}
{{- $env = merge (dict) $env (dict "PGSSLMODE" "verify-full") (ternary (dict "PGSSLROOTCERT" "/etc/sealmesh/database/ca.crt") (dict) (not (empty .caSecret))) -}}
{{- if $.first -}}
- {name: MESH_DATABASE, valueFrom: {secretKeyRef: {name: {{ .existingSecret | quote }}, key: {{ .key | quote }}}}}
{{ end -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $env -}}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{ end -}}
{{- end -}}

{{- define "sealmesh.databaseMount" -}}
{{- if .Values.database.caSecret -}}
- {name: database, mountPath: /etc/sealmesh/database, readOnly: true}
{{- end -}}
{{- end -}}
