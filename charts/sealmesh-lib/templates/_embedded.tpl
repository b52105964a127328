{{/*
For a service with the mesh inside (mesh.join, mesh lua run): what it joins with, and no sidecar. Its pod has the
label sealmesh.dev/inject: disabled, so that the injector leaves it alone.
*/}}

{{- define "sealmesh.embeddedEnv" -}}
- {name: MESH_AUTH, value: {{ required "mesh.auth is missing: set it to auth's join port, such as sealmesh-auth.mesh.svc:7700" .mesh.auth | quote }}}
- {name: MESH_LISTEN, value: "0.0.0.0:{{ (include "sealmesh.ports" . | fromYaml).inbound }}"}
- {name: MESH_SERVICE_ACCOUNT_TOKEN_FILE, value: /var/run/secrets/sealmesh/token}
- {name: MESH_JOIN_KEY_FILE, value: /etc/sealmesh/join/join-key}
{{- end -}}

{{- define "sealmesh.proofMounts" -}}
- {name: mesh-token, mountPath: /var/run/secrets/sealmesh, readOnly: true}
- {name: mesh-join, mountPath: /etc/sealmesh/join, readOnly: true}
{{- end -}}

{{- define "sealmesh.proofVolumes" -}}
- name: mesh-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ required "mesh.audience is missing: set it to that of the chart sealmesh" .mesh.audience | quote }}
          expirationSeconds: {{ default 600 .mesh.tokenSeconds | int }}
- name: mesh-join
  configMap: {name: {{ default "sealmesh-join" .mesh.joinConfigMap | quote }}}
{{- end -}}
