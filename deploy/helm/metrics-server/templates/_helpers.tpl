{{- define "metrics-server.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of most objects. 63 characters are what a label may have. */}}
{{- define "metrics-server.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "metrics-server.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "metrics-server.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* These never change: a Deployment's selector cannot. */}}
{{- define "metrics-server.selectorLabels" -}}
app.kubernetes.io/name: {{ include "metrics-server.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "metrics-server.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "metrics-server.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The subject of every binding. */}}
{{- define "metrics-server.subjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "metrics-server.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* "true" if the arguments bring a serving certificate. */}}
{{- define "metrics-server.certificateInArgs" -}}
{{- range concat (.Values.defaultArgs | default list) (.Values.args | default list) -}}
{{- if hasPrefix "--tls-cert-file" . }}true{{ break }}{{ end -}}
{{- end -}}
{{- end -}}

{{/*
tls.type, or what the other values imply. Values that were written for another chart must go on working, so the server
manages its certificate only if they leave certificate, APIServices and rights to this chart.
.Values.tls is asked for in parentheses because `helm upgrade --reuse-values` keeps the values of a chart without it.
*/}}
{{- define "metrics-server.tlsType" -}}
{{- $type := (.Values.tls).type -}}
{{- if $type -}}
{{- $type -}}
{{- else if or .Values.apiService.insecureSkipTLSVerify .Values.apiService.caBundle (include "metrics-server.certificateInArgs" .) -}}
metrics-server
{{- else if not (and .Values.apiService.create .Values.rbac.create) -}}
metrics-server
{{- else -}}
self-managed
{{- end -}}
{{- end -}}

{{/* The Secret of tls.type self-managed. */}}
{{- define "metrics-server.servingSecret" -}}
{{- ((.Values.tls).selfManaged).secretName | default (printf "%s-serving" (include "metrics-server.fullname" .)) -}}
{{- end -}}

{{/* The Secret whose certificate is mounted, or nothing. */}}
{{- define "metrics-server.mountedSecret" -}}
{{- $type := include "metrics-server.tlsType" . -}}
{{- if has $type (list "helm" "cert-manager") -}}
{{- include "metrics-server.fullname" . -}}
{{- else if eq $type "existingSecret" -}}
{{- .Values.tls.existingSecret.name | default (include "metrics-server.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* The names that the API server and others know the Service by, as YAML. */}}
{{- define "metrics-server.dnsNames" -}}
{{- $name := printf "%s.%s" (include "metrics-server.fullname" .) .Release.Namespace -}}
- {{ $name }}.svc
- {{ $name }}
- {{ $name }}.svc.{{ .Values.tls.clusterDomain }}
{{- end -}}

{{/*
The paths of values that the schema does not have, a line each. It is recursive: (dict "values" VALUES "schema" SCHEMA "prefix" PATH).
"global" is Helm's own.
*/}}
{{- define "metrics-server.unknownValues" -}}
{{- range $key, $value := .values }}
{{- $schema := index $.schema.properties $key }}
{{- if not (or $schema (eq (print $.prefix $key) "global")) }}
{{ print $.prefix $key }}
{{- else if and (kindIs "map" $value) $schema.properties }}
{{- include "metrics-server.unknownValues" (dict "values" $value "schema" $schema "prefix" (print $.prefix $key ".")) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Ends with a reason if values contradict each other. */}}
{{- define "metrics-server.validate" -}}
{{- if and .Values.hostNetwork.enabled (eq (int .Values.containerPort) 10250) -}}
{{- fail "hostNetwork.enabled is true and containerPort is 10250, the kubelet's own port on the host: set containerPort to a free one, such as 4443" -}}
{{- end -}}
{{- if and .Values.apiService.insecureSkipTLSVerify .Values.apiService.caBundle -}}
{{- fail "apiService.insecureSkipTLSVerify is true and apiService.caBundle is set, which the API server refuses: leave out one of them" -}}
{{- end -}}
{{- if eq (include "metrics-server.tlsType" .) "self-managed" -}}
{{- if or .Values.apiService.insecureSkipTLSVerify .Values.apiService.caBundle -}}
{{- fail "tls.type is self-managed, so the server fills in the CA: leave out apiService.insecureSkipTLSVerify and apiService.caBundle" -}}
{{- end -}}
{{- if include "metrics-server.certificateInArgs" . -}}
{{- fail "tls.type is self-managed and args have --tls-cert-file: leave out one of them" -}}
{{- end -}}
{{- end -}}
{{- end -}}
