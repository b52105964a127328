{{/*
What the injector puts into a pod, to be written into one by its own chart. Each template takes
(dict "mesh" MESH "service" NAME "appPort" PORT), MESH being a mapping:

    image          the sidecar's image; required
    auth           host:port of auth's join port; required
    audience       of the tokens that pods prove themselves with; required
    pullPolicy     IfNotPresent
    joinConfigMap  sealmesh-join
    uid            65532; an app that runs as the same user may open the sockets
    tokenSeconds   600
    ports          {inbound: 7800, outbound: 7801, health: 7802}
    resources      {requests: {cpu: 20m, memory: 64Mi}, limits: {memory: 256Mi}}
    env            {}; OTEL_* variables of the sidecar, name to value (docs/telemetry.md)

The pod needs terminationGracePeriodSeconds of 40 or more, so that calls in progress can end.

Without appPort the app only calls. tests/charts holds these to what the injector does.
*/}}

{{- define "sealmesh.ports" -}}
{{- toYaml (merge (dict) (default (dict) .mesh.ports) (dict "inbound" 7800 "outbound" 7801 "health" 7802)) -}}
{{- end -}}

{{/* An init container: put it first. */}}
{{- define "sealmesh.sidecar" -}}
{{- $ports := include "sealmesh.ports" . | fromYaml -}}
{{- $uid := default 65532 .mesh.uid | int -}}
name: mesh-sidecar
image: {{ required "mesh.image is missing: set it to the sidecar's image" .mesh.image | quote }}
imagePullPolicy: {{ default "IfNotPresent" .mesh.pullPolicy }}
restartPolicy: Always
args:
  - sidecar
  - --service
  - {{ .service | quote }}
  - --auth
  - {{ required "mesh.auth is missing: set it to auth's join port, such as sealmesh-auth.mesh.svc:7700" .mesh.auth | quote }}
  - --listen
  - 0.0.0.0:{{ $ports.inbound }}
  - --health
  - 0.0.0.0:{{ $ports.health }}
  - --outbound-port
  - {{ $ports.outbound | quote }}
  - --run-dir
  - /run/mesh/sockets
  {{- with .appPort }}
  - --app-port
  - {{ . | quote }}
  {{- end }}
env:
  - {name: MESH_SERVICE_ACCOUNT_TOKEN_FILE, value: /var/run/secrets/sealmesh/token}
  - {name: MESH_JOIN_KEY_FILE, value: /etc/sealmesh/join/join-key}
  {{- range $name, $value := .mesh.env }}
  - {name: {{ $name | quote }}, value: {{ $value | quote }}}
  {{- end }}
ports:
  - {name: mesh, containerPort: {{ $ports.inbound }}, protocol: TCP}
  - {name: mesh-health, containerPort: {{ $ports.health }}, protocol: TCP}
  {{- if has "prometheus" (dig "env" "OTEL_METRICS_EXPORTER" "" .mesh | splitList ",") }}
  - {name: mesh-metrics, containerPort: {{ dig "env" "OTEL_EXPORTER_PROMETHEUS_PORT" "9464" .mesh | int }}, protocol: TCP}
  {{- end }}
startupProbe:
  grpc: {port: {{ $ports.health }}}
  periodSeconds: 1
  failureThreshold: 120
readinessProbe:
  grpc: {port: {{ $ports.health }}, service: ready}
  periodSeconds: 5
livenessProbe:
  grpc: {port: {{ $ports.health }}}
  periodSeconds: 10
  failureThreshold: 6
lifecycle:
  preStop:
    exec:
      command: [python, -m, sidecar.drain]
resources: {{- toYaml (default (dict "requests" (dict "cpu" "20m" "memory" "64Mi") "limits" (dict "memory" "256Mi")) .mesh.resources) | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  privileged: false
  readOnlyRootFilesystem: true
  runAsGroup: {{ $uid }}
  runAsNonRoot: true
  runAsUser: {{ $uid }}
  seccompProfile:
    type: RuntimeDefault
volumeMounts:
  - {name: mesh-run, mountPath: /run/mesh}
  {{- include "sealmesh.proofMounts" . | nindent 2 }}
{{- end -}}

{{- define "sealmesh.volumes" -}}
- name: mesh-run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{ include "sealmesh.proofVolumes" . }}
{{- end -}}

{{/* For an app's container: where the way out is. */}}
{{- define "sealmesh.env" -}}
- {name: MESH_OUTBOUND, value: "127.0.0.1:{{ (include "sealmesh.ports" . | fromYaml).outbound }}"}
{{- end -}}

{{/* For an app's container that runs as the sidecar's user: a socket for each service it may call. */}}
{{- define "sealmesh.socketEnv" -}}
- {name: MESH_RUN_DIR, value: /run/mesh/sockets}
{{- end -}}

{{- define "sealmesh.socketMount" -}}
- {name: mesh-run, mountPath: /run/mesh}
{{- end -}}

{{- define "sealmesh.annotations" -}}
sealmesh.dev/injected: {{ .service | quote }}
{{- end -}}
