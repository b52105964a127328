{{- define "sealmesh.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "sealmesh.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "sealmesh.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sealmesh.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of a part: (dict "part" "auth" "root" $). */}}
{{- define "sealmesh.partName" -}}
{{- printf "%s-%s" (include "sealmesh.fullname" .root) .part -}}
{{- end -}}

{{/* Of an object without a namespace: two releases must not share it. */}}
{{- define "sealmesh.clusterName" -}}
{{- printf "%s-%s" (include "sealmesh.partName" .) .root.Release.Namespace | trimSuffix "-" -}}
{{- end -}}

{{- define "sealmesh.selector" -}}
app.kubernetes.io/name: {{ include "sealmesh.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "sealmesh.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "sealmesh.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: sealmesh
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sealmesh.metadata" -}}
name: {{ include "sealmesh.partName" . }}
namespace: {{ .root.Release.Namespace | quote }}
labels: {{- include "sealmesh.labels" . | nindent 2 }}
{{- end -}}

{{- define "sealmesh.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "sealmesh.audience" -}}
{{- default (printf "sealmesh/%s" .Values.trustDomain) .Values.audience -}}
{{- end -}}

{{/* Where each replica of a part is: (dict "part" "auth" "port" 7701 "root" $). */}}
{{- define "sealmesh.each" -}}
{{- $places := list -}}
{{- range $number := until (index .root.Values .part "replicas" | int) -}}
{{- $places = append $places (printf "%s-%d.%s.svc:%d" (include "sealmesh.partName" $) $number $.root.Release.Namespace (int $.port)) -}}
{{- end -}}
{{- join "," $places -}}
{{- end -}}

{{- define "sealmesh.host" -}}
{{- printf "%s.%s.svc" (include "sealmesh.partName" .) .root.Release.Namespace -}}
{{- end -}}
