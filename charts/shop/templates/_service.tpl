{{/*
One service of the shop: (dict "root" $ "service" NAME "command" LIST), with "appPort" PORT beside a sidecar,
without it with the mesh inside; "lua" for the one in Lua.
*/}}
{{- define "shop.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{ include "shop.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: shop
{{- end -}}

{{- define "shop.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .service }}
{{- end -}}

{{- define "shop.image" -}}
image: {{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
{{- end -}}

{{- define "shop.podSecurity" -}}
runAsGroup: 65532
runAsNonRoot: true
runAsUser: 65532 # the sidecar's user, so that its sockets are open to the app
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "shop.workload" -}}
{{- $mesh := dict "mesh" .root.Values.mesh "service" .service "appPort" .appPort -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .service }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "shop.labels" . | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .service }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "shop.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels: {{- include "shop.selector" . | nindent 6 }}
  template:
    metadata:
      annotations: {{- include "sealmesh.annotations" $mesh | nindent 8 }}
      labels:
        {{- include "shop.labels" . | nindent 8 }}
        sealmesh.dev/inject: disabled
    spec:
      serviceAccountName: {{ .service }} # by the mesh's rules, this is what makes it the service
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 40 # a drain takes up to 32
      securityContext: {{- include "shop.podSecurity" . | nindent 8 }}
      {{- if .appPort }}
      initContainers:
        - {{- include "sealmesh.sidecar" $mesh | nindent 10 }}
      {{- end }}
      containers:
        - name: {{ .service }}
          {{- include "shop.image" .root | nindent 10 }}
          command: {{- toYaml .command | nindent 12 }}
          env:
            {{- if .appPort }}
            {{- include "sealmesh.env" $mesh | nindent 12 }}
            {{- include "sealmesh.socketEnv" $mesh | nindent 12 }}
            {{- else }}
            {{- include "sealmesh.embeddedEnv" $mesh | nindent 12 }}
            {{- end }}
          {{- if .appPort }}
          ports:
            - {name: grpc, containerPort: {{ .appPort }}}
          {{- else }}
          ports:
            - {name: mesh, containerPort: 7800}
          readinessProbe:
            tcpSocket: {port: mesh}
            periodSeconds: 5
          {{- end }}
          resources: {{- toYaml (ternary .root.Values.luaResources .root.Values.resources (hasKey . "lua")) | nindent 12 }}
          volumeMounts:
            {{- if .appPort }}
            {{- include "sealmesh.socketMount" $mesh | nindent 12 }}
            {{- else }}
            {{- include "sealmesh.proofMounts" $mesh | nindent 12 }}
            {{- end }}
            - {name: tmp, mountPath: /tmp}
      volumes:
        {{- if .appPort }}
        {{- include "sealmesh.volumes" $mesh | nindent 8 }}
        {{- else }}
        {{- include "sealmesh.proofVolumes" $mesh | nindent 8 }}
        {{- end }}
        - name: tmp
          emptyDir: {medium: Memory, sizeLimit: 16Mi}
---
# Only the mesh gets in: what the app listens on is for its sidecar.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .service }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "shop.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "shop.selector" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - ports:
        - {port: 7800, protocol: TCP}
        {{- if .door }}
        - {port: {{ .appPort }}, protocol: TCP}
        {{- end }}
{{- end -}}
