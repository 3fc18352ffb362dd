{{/*
Every template begins with this. It turns the values into the types that the templates expect, however a values file spells
them, and ends with a reason if values are another chart's or contradict each other. The templates of a chart share its values,
so the first one does it for all.
*/}}
{{- define "metrics-server.normalise" -}}
{{- if not .normalised -}}
{{- include "metrics-server.foreign" . -}}
{{- $schema := include "metrics-server.file" (dict "root" . "file" "files/schema.json") | fromJson -}}
{{- include "metrics-server.normaliseGroup" (dict "values" .Values "schema" $schema "prefix" "") -}}
{{- include "metrics-server.validate" . -}}
{{- $_ := set . "normalised" true -}}
{{- end -}}
{{- end -}}

{{/* The content of a file of the chart: (dict "root" $ "file" PATH). Fails if a tool has left the file out. */}}
{{- define "metrics-server.file" -}}
{{- .root.Files.Get .file | default "" | required (printf "the chart has no %s: copy all of its files" .file) -}}
{{- end -}}

{{/*
Normalises the values of one group by its schema: (dict "values" VALUES "schema" SCHEMA "prefix" PATH "unset" BOOL). The name of a
value's definition says what it becomes. "unset" says that the whole group is not set, so that its booleans are their defaults
too; a single boolean that is not set is false, as Helm templates take it.
*/}}
{{- define "metrics-server.normaliseGroup" -}}
{{- $true := list "true" "1" "yes" "on" -}}
{{- $false := list "false" "0" "no" "off" -}}
{{- range $key, $schema := .schema.properties -}}
{{- $path := print $.prefix $key -}}
{{- $type := index $schema "$ref" | default "" | trimPrefix "#/definitions/" -}}
{{- $default := index $schema "default" -}}
{{- $value := index $.values $key -}}
{{- if and (kindIs "string" $value) (or (ne $type "pem") (not (trim $value))) -}}
{{- $value = trim $value -}}
{{- end -}}
{{- $blank := not (or $value (kindIs "bool" $value) (kindIs "int" $value) (kindIs "int64" $value) (kindIs "float64" $value)) -}}
{{- if and (kindIs "bool" $value) (not (has $type (list "boolean" "optionalBoolean"))) -}}
{{- range $switch := list "enabled" "create" -}}
{{- if hasKey ($schema.properties | default dict) $switch -}}
{{- fail (printf "%s is %t, but it is a group of values: set %s.%s" $path $value $path $switch) -}}
{{- end -}}
{{- end -}}
{{- if $value -}}{{- fail (printf "%s is true: set it to a value of its own, or leave it out" $path) -}}{{- end -}}
{{- $blank = true -}}
{{- end -}}
{{- if $schema.properties -}}
{{- $group := ternary dict $value $blank -}}
{{- include "metrics-server.normaliseGroup" (dict "values" $group "schema" $schema "prefix" (print $path ".") "unset" $blank) -}}
{{- $value = $group -}}
{{- else if and (has $type (list "boolean" "optionalBoolean")) (not $blank) (not (has (toString $value | lower) (concat $true $false))) -}}
{{- fail (printf "%s is %q: want true or false" $path (toString $value)) -}}
{{- else if eq $type "boolean" -}}
{{- $value = ternary (and $.unset $default) (has (toString $value | lower) $true) $blank | default false -}}
{{- else if eq $type "optionalBoolean" -}}
{{- $value = ternary nil (has (toString $value | lower) $true) $blank -}}
{{- else if and (eq $type "strings") (kindIs "map" $value) (not $value) -}}
{{- /* empty on purpose: all keys of the default are null */ -}}
{{- else if $blank -}}
{{- $value = $default -}}
{{- if and (has $type (list "port" "count")) (not (kindIs "invalid" $default)) -}}{{- $value = int $default -}}{{- end -}}
{{- if kindIs "invalid" $default -}}
{{- if has $type (list "objects" "args" "ports") -}}{{- $value = list -}}
{{- else if has $type (list "strings" "object" "updateStrategy") -}}{{- $value = dict -}}
{{- else if not (has $type (list "count" "budget")) -}}{{- $value = "" -}}
{{- end -}}
{{- end -}}
{{- else if has $type (list "port" "count") -}}
{{- $value = include "metrics-server.text" $value | int -}}
{{- else if eq $type "budget" -}}
{{- $text := include "metrics-server.text" $value -}}
{{- $value = ternary $text (int $text) (hasSuffix "%" $text) -}}
{{- else if eq $type "ports" -}}
{{- $ports := list -}}
{{- range $value -}}{{- $ports = append $ports (include "metrics-server.text" . | int) -}}{{- end -}}
{{- $value = $ports -}}
{{- else if eq $type "strings" -}}
{{- $strings := dict -}}
{{- range $k, $v := $value -}}
{{- if not (kindIs "invalid" $v) -}}{{- $_ := set $strings $k (include "metrics-server.text" $v) -}}{{- end -}}
{{- end -}}
{{- $value = $strings -}}
{{- else if eq $type "objects" -}}
{{- $value = compact $value -}}
{{- else if eq $type "args" -}}
{{- if not (kindIs "slice" $value) -}}
{{- fail (printf "%s is the text %q, but it is a list: write %s: [--a, --b], or --set '%s={--a,--b}'" $path $value $path $path) -}}
{{- end -}}
{{- $args := list -}}
{{- range $value -}}
{{- /* --set 'args={"--a","--b"}' leaves the quotes. */ -}}
{{- with regexReplaceAll "^(\"([^\"]*)\"|'([^']*)')$" (include "metrics-server.text" .) "${2}${3}" | trim -}}
{{- $args = append $args . -}}
{{- end -}}
{{- end -}}
{{- $value = $args -}}
{{- else if not (has $type (list "object" "updateStrategy" "pem")) -}}
{{- $value = include "metrics-server.text" $value -}}
{{- end -}}
{{- $_ := set $.values $key $value -}}
{{- end -}}
{{- end -}}

{{/* A scalar as text. Helm reads numbers as floating point: 20240101 must not become 2.0240101e+07. */}}
{{- define "metrics-server.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}{{- int64 . -}}
{{- else if not (kindIs "invalid" .) -}}{{- toString . | trim -}}
{{- end -}}
{{- end -}}

{{/*
Ends with a reason if a value is one of the charts that people come from and would be lost without a word: Bitnami's, the stable
repository's. Keys that belong to no such chart are let through, with a warning in NOTES.txt.
*/}}
{{- define "metrics-server.foreign" -}}
{{- $noEquivalent := "has no equivalent here: add it by a post-renderer, or leave it out" -}}
{{- range $path, $instead := dict
  "namespaceOverride" (printf "is not supported: install the release in that namespace, by --namespace (now %s)" .Release.Namespace)
  "image.registry" "is another chart's value: put the registry in front of image.repository"
  "image.digest" "is another chart's value: append the digest to image.tag, as in v1.2.3@sha256:..."
  "image.pullSecrets" "is another chart's value: use imagePullSecrets, as in [{name: SECRET}]"
  "containerPorts" "is another chart's value: use containerPort"
  "service.ports" "is another chart's value: use service.port"
  "extraArgs" "is another chart's value: use args, a list"
  "command" "is another chart's value: the image starts the server; give its flags in args"
  "containerSecurityContext" "is another chart's value: use securityContext"
  "securityContext.enabled" "is another chart's value: leave it out; securityContext: {} leaves the container without one"
  "podSecurityContext.enabled" "is another chart's value: leave it out; podSecurityContext: {} leaves the pod without one"
  "livenessProbe.enabled" "is another chart's value: leave it out; livenessProbe: null leaves the container without one"
  "readinessProbe.enabled" "is another chart's value: leave it out; readinessProbe: null leaves the container without one"
  "customLivenessProbe" "is another chart's value: use livenessProbe"
  "customReadinessProbe" "is another chart's value: use readinessProbe"
  "pdb" "is another chart's value: use podDisruptionBudget"
  "resourcesPreset" "is another chart's value: use resources"
  "podAffinityPreset" "is another chart's value: use affinity"
  "podAntiAffinityPreset" "is another chart's value: use affinity"
  "nodeAffinityPreset" "is another chart's value: use affinity"
  "extraEnvVars" $noEquivalent
  "extraEnvVarsCM" $noEquivalent
  "extraEnvVarsSecret" $noEquivalent
  "extraContainers" $noEquivalent
  "extraDeploy" $noEquivalent
  "initContainers" $noEquivalent
  "sidecars" $noEquivalent
-}}
{{- $value := $.Values -}}
{{- range splitList "." $path -}}
{{- $value = ternary (index (ternary $value dict (kindIs "map" $value)) .) nil (kindIs "map" $value) -}}
{{- end -}}
{{- if include "metrics-server.says" $value -}}
{{- if not (and (eq $path "namespaceOverride") (eq (toString $value) $.Release.Namespace)) -}}
{{- fail (printf "%s %s" $path $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" unless everything in a value is empty or false, as in a copy of another chart's defaults. */}}
{{- define "metrics-server.says" -}}
{{- if or (kindIs "map" .) (kindIs "slice" .) -}}
{{- $found := "" -}}
{{- range . -}}{{- $found = print $found (include "metrics-server.says" .) -}}{{- end -}}
{{- if $found -}}true{{- end -}}
{{- else if . -}}true
{{- end -}}
{{- end -}}

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

{{/*
"true" if the chart creates the account whose tokens kubelets are shown. The values are read in parentheses, and a missing value counts
as true, because `helm upgrade --reuse-values` keeps the values of a chart without it.
*/}}
{{- define "metrics-server.createKubeletServiceAccount" -}}
{{- if ne (toString (.Values.kubeletServiceAccount).create) "false" -}}true{{- end -}}
{{- end -}}

{{/* The name of that account. Nothing: there is none, and kubelets are shown the server's own token. */}}
{{- define "metrics-server.kubeletServiceAccountName" -}}
{{- if (.Values.kubeletServiceAccount).name -}}
{{- .Values.kubeletServiceAccount.name -}}
{{- else if include "metrics-server.createKubeletServiceAccount" . -}}
{{- include "metrics-server.fullname" . }}-kubelets
{{- end -}}
{{- end -}}

{{/* These never change: a Deployment's selector cannot. */}}
{{- define "metrics-server.selectorLabels" -}}
app.kubernetes.io/name: {{ include "metrics-server.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "metrics-server.labels" -}}
{{- include "metrics-server.labelsWith" (dict "root" . "selector" (include "metrics-server.selectorLabels" .)) -}}
{{- end -}}

{{/* The labels of an object of the server that the selector labels belong to: (dict "root" $ "selector" LABELS). */}}
{{- define "metrics-server.labelsWith" -}}
{{- $selector := .selector -}}
{{- with .root -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ $selector }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The name of most objects of the custom metrics server. A Service's name has at most 63 characters. */}}
{{- define "metrics-server.customMetricsName" -}}
{{- include "metrics-server.fullname" . | trunc 48 | trimSuffix "-" -}}-custom-metrics
{{- end -}}

{{/* The label app.kubernetes.io/name of the custom metrics server, which is the job that its ServiceMonitor creates. */}}
{{- define "metrics-server.customMetricsJob" -}}
{{- include "metrics-server.name" . | trunc 48 | trimSuffix "-" -}}-custom-metrics
{{- end -}}

{{/*
It differs from the app.kubernetes.io/name of the resource server, whose selectors have only this label and the instance.
*/}}
{{- define "metrics-server.customMetricsSelectorLabels" -}}
app.kubernetes.io/name: {{ include "metrics-server.customMetricsJob" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "metrics-server.customMetricsLabels" -}}
{{- include "metrics-server.labelsWith" (dict "root" . "selector" (include "metrics-server.customMetricsSelectorLabels" .)) -}}
{{- end -}}

{{- define "metrics-server.customMetricsSubjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "metrics-server.customMetricsName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* What the pods of both servers have in common. */}}
{{- define "metrics-server.podSettings" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The nodes on which the pods of both servers may run. */}}
{{- define "metrics-server.nodes" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "metrics-server.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end -}}

{{/* The subject of every binding. */}}
{{- define "metrics-server.subjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "metrics-server.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/*
"true" if the arguments bring a serving certificate. Flags are recognised in every spelling that the server accepts: with one
hyphen, with underscores, and with a blank before the value.
*/}}
{{- define "metrics-server.certificateInArgs" -}}
{{- range concat .Values.defaultArgs .Values.args -}}
{{- if regexMatch "^--?tls[-_]cert[-_]file" . }}true{{ break }}{{ end -}}
{{- end -}}
{{- end -}}

{{/*
The port in a list of arguments, "" if they have none: the server takes the last one. The flag and its value can be two arguments.
*/}}
{{- define "metrics-server.portInArgs" -}}
{{- $flag := "^--?secure[-_]port" -}}
{{- $port := "" -}}
{{- $next := false -}}
{{- range . -}}
{{- if or $next (regexMatch (print $flag "[=\\s]") .) -}}
{{- $port = regexReplaceAll (print $flag "\\s*[=\\s]") . "" | trimAll "\"' " -}}
{{- end -}}
{{- $next = regexMatch (print $flag "$") . -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{/* Where the server listens. */}}
{{- define "metrics-server.port" -}}
{{- include "metrics-server.portInArgs" (concat .Values.defaultArgs .Values.args) | default .Values.containerPort -}}
{{- end -}}

{{/* Where the custom metrics server listens. */}}
{{- define "metrics-server.customMetricsPort" -}}
{{- include "metrics-server.portInArgs" .Values.customMetrics.extraArgs | default .Values.customMetrics.containerPort -}}
{{- end -}}

{{/*
tls.type, or what the other values imply. Values that were written for another chart must go on working, so the server
manages its certificate only if they leave certificate, APIServices and rights to this chart.
*/}}
{{- define "metrics-server.tlsType" -}}
{{- if .Values.tls.type -}}
{{- .Values.tls.type -}}
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
{{- .Values.tls.selfManaged.secretName | default (printf "%s-serving" (include "metrics-server.fullname" .)) -}}
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

{{/*
Fails if the arguments set an invalid port, or a port other than that of the value: (dict "port" PORT "args" LIST
"portPath" PATH "argsPath" PATH). The error names both values by these paths.
*/}}
{{- define "metrics-server.validatePort" -}}
{{- with include "metrics-server.portInArgs" .args -}}
{{- if or (not (regexMatch "^[0-9]{1,5}$" .)) (lt (int .) 1) (gt (int .) 65535) -}}
{{- fail (printf "%s have --secure-port=%s: want a number from 1 to 65535" $.argsPath .) -}}
{{- end -}}
{{- if not (has $.port (list 10250 (int .))) -}}
{{- fail (printf "%s is %d and %s have --secure-port=%s, on which the server listens: leave out one of them" $.portPath $.port $.argsPath .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Ends with a reason if values contradict each other. */}}
{{- define "metrics-server.validate" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: set it, or leave image out of your values" -}}
{{- end -}}
{{- range list .Values.containerPort .Values.service.port .Values.customMetrics.containerPort -}}
{{- if or (lt . 1) (gt . 65535) -}}{{- fail (printf "port %d: want a number from 1 to 65535" .) -}}{{- end -}}
{{- end -}}
{{- include "metrics-server.validatePort" (dict "port" .Values.containerPort "args" (concat .Values.defaultArgs .Values.args)
  "portPath" "containerPort" "argsPath" "args") -}}
{{- with .Values.customMetrics -}}
{{- include "metrics-server.validatePort" (dict "port" .containerPort "args" .extraArgs
  "portPath" "customMetrics.containerPort" "argsPath" "customMetrics.extraArgs") -}}
{{- end -}}
{{- if and .Values.hostNetwork.enabled (eq (include "metrics-server.port" .) "10250") -}}
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

{{/*
A PodDisruptionBudget: (dict "root" $ "path" PATH "budget" VALUES "name" NAME "labels" LABELS "selector" LABELS). The
path is where the values are, for errors.
*/}}
{{- define "metrics-server.budget" -}}
{{- if .budget.enabled }}
{{- $min := not (kindIs "invalid" .budget.minAvailable) }}
{{- $max := not (kindIs "invalid" .budget.maxUnavailable) }}
{{- if and $min $max }}
{{- /* Values files for the chart of kubernetes-sigs/metrics-server set the unused one to 0. */}}
{{- $min = ne (toString .budget.minAvailable) "0" }}
{{- $max = ne (toString .budget.maxUnavailable) "0" }}
{{- end }}
{{- if and $min $max }}
{{- fail (printf "%s has minAvailable and maxUnavailable: set one of them" .path) }}
{{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
spec:
  {{- if $min }}
  minAvailable: {{ .budget.minAvailable }}
  {{- else }}
  maxUnavailable: {{ ternary .budget.maxUnavailable 1 $max }}
  {{- end }}
  {{- with .budget.unhealthyPodEvictionPolicy }}
  unhealthyPodEvictionPolicy: {{ . }}
  {{- end }}
  selector:
    matchLabels:
      {{- .selector | nindent 6 }}
{{- end }}
{{- end -}}

{{/*
A ServiceMonitor: (dict "root" $ "name" NAME "labels" LABELS "selector" LABELS "jobLabel" KEY). The job is named after
the Service's label with that key, and the two servers must have different jobs.
*/}}
{{- define "metrics-server.monitor" }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
    {{- with .root.Values.serviceMonitor.additionalLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  jobLabel: {{ .jobLabel }}
  namespaceSelector:
    matchNames: [{{ .root.Release.Namespace }}]
  selector:
    matchLabels:
      {{- .selector | nindent 6 }}
  endpoints:
  - port: https
    path: /metrics
    scheme: https
    tlsConfig:
      # Pods are scraped by address, which no certificate of theirs has. Nothing is sent but the request.
      insecureSkipVerify: true
    {{- with .root.Values.serviceMonitor.interval }}
    interval: {{ . }}
    {{- end }}
    {{- with .root.Values.serviceMonitor.scrapeTimeout }}
    scrapeTimeout: {{ . }}
    {{- end }}
    {{- with .root.Values.serviceMonitor.metricRelabelings }}
    metricRelabelings:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .root.Values.serviceMonitor.relabelings }}
    relabelings:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}

{{/*
A PrometheusRule with the alerts of a file: (dict "root" $ "file" PATH "name" NAME "labels" LABELS). The file describes
an installation by deploy/kustomize. Its names are replaced by those of the release, and its jobs by those that
servicemonitor.yaml sets.
*/}}
{{- define "metrics-server.alerts" }}
{{- $fullname := include "metrics-server.fullname" .root }}
{{- $custom := include "metrics-server.customMetricsName" .root }}
{{- $customJob := include "metrics-server.customMetricsJob" .root }}
{{- $alerts := include "metrics-server.file" . }}
{{- range $from, $to := dict
  `job="metrics-server"` (printf "job=%q" .root.Release.Name)
  `job="custom-metrics-server"` (printf "job=%q" $customJob)
  `namespace="kube-system"` (printf "namespace=%q" .root.Release.Namespace)
  "-n kube-system" (printf "-n %s" .root.Release.Namespace)
}}
{{- $alerts = replace $from $to $alerts }}
{{- end }}
{{- /* Whole words only: the name of one server may begin with that of the other one. */}}
{{- range $from, $to := dict "custom-metrics-server" $custom "metrics-server" $fullname }}
{{- $alerts = regexReplaceAll (printf "(deployment/|grep )%s([^-\\w]|$)" $from) $alerts (printf "${1}%s${2}" $to) }}
{{- end }}
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
    {{- with .root.Values.prometheusRule.additionalLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  groups:
  {{- (fromYaml $alerts).groups | toYaml | nindent 2 }}
{{- end -}}
