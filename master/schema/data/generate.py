#!/usr/bin/env python3
"""Writes types.json.gz and openapi.json.gz: what the API server knows of the types of its kinds.

Sources (both Apache-2.0; see NOTICE):
  * PyPI package kubernetes-validate 1.37.0 (`pip download --no-deps kubernetes-validate && unzip *.whl`): the published
    OpenAPI definitions of each release, with merge keys, list types and group-version-kinds.
  * Go modules k8s.io/api, k8s.io/apimachinery, k8s.io/apiextensions-apiserver and k8s.io/kube-aggregator (`go mod download`): of each field whether it
    is a pointer and omitted when empty, its Go type name (for the texts of type errors), and `+default=` markers. Only these facts are taken.

Then run protobuf.py, which writes protobuf.json.gz for the same definitions.

usage: generate.py DEFINITIONS GO_API GO_APIMACHINERY GO_APIEXTENSIONS GO_AGGREGATOR
  e.g. generate.py kubernetes-json-schema/v1.36.0-local/_definitions.json k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator}@v0.36.3

types.json.gz is a list, one entry a definition:
  [name, Go type name, atomic map?, [[field, type, flags, Go type, default, merge key, strategy, list type, map keys], …]]
with trailing empty columns cut off. Types: s string, b bool, i int32, l int64, f double, B base64, q quantity,
o int-or-string, t time, m time with microseconds, d duration, * anything, [T list, {T map, #N the definition at
index N, ?N such an object or a bool, /N
such an object or a list of them, %N such an object or a list of texts. Flags: p pointer, e omitted when empty.
"""

import gzip
import json
import re
import sys
from pathlib import Path

CORE, API, META = "io.k8s.api.core.v1.", "io.k8s.api.", "io.k8s.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

# Adding a kind: name its definition here.
ROOTS = [CORE + k for k in (
    "Namespace Node Pod Service Endpoints ConfigMap Secret ServiceAccount Event Binding PodTemplateSpec PodTemplate "
    "PersistentVolume PersistentVolumeClaim LimitRange ResourceQuota ReplicationController".split())]
ROOTS += [API + k for k in """
    apps.v1.ReplicaSet apps.v1.Deployment apps.v1.DaemonSet apps.v1.StatefulSet apps.v1.ControllerRevision
    batch.v1.Job batch.v1.CronJob node.v1.RuntimeClass
    storage.v1.StorageClass storage.v1.CSIDriver storage.v1.CSINode storage.v1.CSIStorageCapacity
    storage.v1.VolumeAttachment storage.v1.VolumeAttributesClass
    networking.v1.Ingress networking.v1.IngressClass networking.v1.NetworkPolicy networking.v1.IPAddress
    networking.v1.ServiceCIDR
    autoscaling.v1.HorizontalPodAutoscaler autoscaling.v2.HorizontalPodAutoscaler
    flowcontrol.v1.FlowSchema flowcontrol.v1.PriorityLevelConfiguration
    admissionregistration.v1.ValidatingWebhookConfiguration admissionregistration.v1.MutatingWebhookConfiguration
    admissionregistration.v1.ValidatingAdmissionPolicy admissionregistration.v1.ValidatingAdmissionPolicyBinding
    admissionregistration.v1.MutatingAdmissionPolicy admissionregistration.v1.MutatingAdmissionPolicyBinding
    discovery.v1.EndpointSlice coordination.v1.Lease events.v1.Event
    rbac.v1.Role rbac.v1.RoleBinding rbac.v1.ClusterRole rbac.v1.ClusterRoleBinding
    certificates.v1.CertificateSigningRequest
    authentication.v1.TokenReview authentication.v1.SelfSubjectReview authentication.v1.TokenRequest
    authorization.v1.SubjectAccessReview authorization.v1.LocalSubjectAccessReview
    authorization.v1.SelfSubjectAccessReview authorization.v1.SelfSubjectRulesReview
    resource.v1.DeviceClass resource.v1.ResourceClaim resource.v1.ResourceClaimTemplate resource.v1.ResourceSlice
    scheduling.v1.PriorityClass policy.v1.PodDisruptionBudget policy.v1.Eviction autoscaling.v1.Scale
""".split()]
ROOTS += [EXTENSIONS + "CustomResourceDefinition"]
ROOTS += ["io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService"]
ROOTS += [META + "DeleteOptions"]
# Shown to clients, never decoded here.
SHOWN = [META + k for k in "Status APIResourceList APIGroup APIGroupList APIVersions WatchEvent Patch".split()]

SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "o",
    META + "Time": "t",
    META + "MicroTime": "m",
    META + "Duration": "d",
    META + "FieldsV1": "*",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "*",
}
# An object of this definition, or something that is no object.
SCHEMA = EXTENSIONS + "JSONSchemaProps"
EITHER = {SCHEMA + "OrBool": "?", SCHEMA + "OrArray": "/", SCHEMA + "OrStringArray": "%"}
# A struct without fields.
EMPTY = EXTENSIONS + "CustomResourceSubresourceStatus"
SCALARS = {("string", None): "s", ("boolean", None): "b", ("integer", "int32"): "i", ("integer", "int64"): "l",
           ("integer", None): "l", ("number", "double"): "f", ("number", None): "f", ("string", "byte"): "B",
           ("string", "date-time"): "t"}


def simple_type(schema):
    kind = schema.get("type")
    return next((k for k in kind if k != "null"), None) if isinstance(kind, list) else kind


def reference(schema):
    target = schema.get("$ref")
    return target.rsplit("/", 1)[1] if target else None


def closure(definitions, roots):
    seen, queue = {}, list(roots)
    while queue:
        name = queue.pop(0)
        if name in seen:
            continue
        seen[name] = definitions[name]
        queue += re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(definitions[name]))
    return seen


class Go:
    """The facts of Go structs, by package (`core/v1`, `meta/v1`) and type name."""

    STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}", re.M | re.S)
    FIELD = re.compile(r'^\s*(?:(\w+)\s+)?([\w\.\*\[\]]+)\s+`.*?json:"([^"]*)"')
    ALIAS = re.compile(r"^type (\w+) (\w+)$", re.M)

    def __init__(self, api, machinery, extensions, aggregator):
        self.structs = {}
        for file in sorted(Path(api).glob("*/*/types.go")):
            self.read("/".join(file.parts[-3:-1]), file.read_text())
        for name in ("types.go", "micro_time.go"):
            self.read("meta/v1", (Path(machinery) / "pkg/apis/meta/v1" / name).read_text())
        for name in ("types.go", "types_jsonschema.go"):
            self.read("apiextensions/v1", (Path(extensions) / "pkg/apis/apiextensions/v1" / name).read_text())
        self.read("apiregistration/v1", (Path(aggregator) / "pkg/apis/apiregistration/v1/types.go").read_text())

    def read(self, package, text):
        for name, body in self.STRUCT.findall(text):
            self.structs[package, name] = list(self.fields(body))

    def fields(self, body):
        default = None
        for line in body.splitlines():
            marker = re.match(r"\s*// \+default=(.+)$", line)
            if marker:
                default = marker.group(1)
                continue
            field = self.FIELD.match(line)
            if field and not line.strip().startswith("//"):
                options = field.group(3).split(",")
                yield options[0], field.group(2), options[1:], default
                default = None

    def find(self, package, struct, field):
        """(Go type, JSON options, default) of a field, through embedded structs."""
        for name, go, options, default in self.structs.get((package, struct), []):
            if name == field:
                return go, options, default
            if name == "" and "inline" in options:
                inner = go.lstrip("*").rsplit(".", 1)
                home = "meta/v1" if inner[0] == "metav1" else package
                found = self.find(home, inner[-1], field)
                if found:
                    return found
        return None


def package_of(name):
    parts = name.split(".")
    return "/".join(parts[-3:-1])


def go_display(go, package):
    """A Go type as reflect prints it: `v1.PullPolicy`, `[]v1.Container`, `string`."""
    go = go.lstrip("*")
    version = package.rsplit("/", 1)[1]
    match = re.match(r"^((?:\[\]|map\[\w+\]|\*)*)(.+)$", go)
    prefix, base = match.groups()
    if "." in base:
        base = base.replace("metav1.", "v1.")
    elif base[0].isupper():
        base = f"{version}.{base}"
    return prefix + base


def type_of(schema, index):
    target = reference(schema)
    if target in SPECIAL:
        return SPECIAL[target]
    if target in EITHER:
        return f"{EITHER[target]}{index[SCHEMA]}"
    if target:
        return f"#{index[target]}" if target in index else "*"
    kind = simple_type(schema)
    if kind == "array":
        return "[" + type_of(schema["items"], index)
    if kind == "object" and "additionalProperties" in schema:
        return "{" + type_of(schema["additionalProperties"], index)
    if kind == "object" or kind is None:
        return "*"
    return SCALARS[kind, schema.get("format")]


def field_row(name, schema, index, go, package, struct):
    kind = type_of(schema, index)
    found = go.find(package, struct, name)
    flags, shown, default = "", "", None
    if found:
        declared, options, marker = found
        omit = "omitempty" in options or "omitzero" in options
        is_struct = kind[0] in "#qotm"
        if declared.startswith("*"):
            flags += "p"
        if omit and (not is_struct or declared.startswith("*") or "omitzero" in options):
            flags += "e"
        if marker and not marker.startswith("ref("):
            default = json.loads(marker)
        shown = go_display(declared, package)
        if {"s": "string", "b": "bool", "i": "int32", "l": "int64"}.get(kind) == shown:
            shown = ""
    else:
        print(f"no Go field: {package} {struct}.{name}", file=sys.stderr)
        flags = "pe"
    row = [name, kind, flags, shown, default, schema.get("x-kubernetes-patch-merge-key", ""),
           schema.get("x-kubernetes-patch-strategy", ""), schema.get("x-kubernetes-list-type", "")
           or schema.get("x-kubernetes-map-type", ""), schema.get("x-kubernetes-list-map-keys", [])]
    while row[-1] in ("", None, []) :
        row.pop()
    return row


def types(definitions, go):
    wanted = {n: d for n, d in closure(definitions, ROOTS).items() if n not in SPECIAL and ("properties" in d or n == EMPTY)}
    index = {name: i for i, name in enumerate(wanted)}
    rows = []
    for name, schema in wanted.items():
        package, struct = package_of(name), name.rsplit(".", 1)[1]
        fields = [field_row(f, s, index, go, package, struct) for f, s in sorted(schema.get("properties", {}).items())]
        rows.append([name, struct, schema.get("x-kubernetes-map-type") == "atomic", fields])
    return rows


def shown(schema):
    """A definition as upstream publishes it: the JSON Schema of the source without its nulls and enums."""
    if isinstance(schema, list):
        return [shown(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            out[key] = next(v for v in value if v != "null")
        elif key == "$ref":
            out[key] = "#/definitions/" + value.rsplit("/", 1)[1]
        elif key == "properties":
            out[key] = {name: property_of(name, s) for name, s in value.items()}
        elif key not in ("additionalProperties",) or value is not False:
            out[key] = shown(value)
    return out


def property_of(name, schema):
    out = shown(schema)
    if name in ("apiVersion", "kind"):
        out.pop("enum", None)
    return out


def openapi(definitions):
    lists = [r + "List" for r in ROOTS if r + "List" in definitions]
    out = {name: shown(s) for name, s in sorted(closure(definitions, ROOTS + lists + SHOWN).items())}
    out["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {
        "description": "Quantity is a fixed-point number: an integer or decimal with an optional suffix "
                       "(n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei) or exponent.", "type": "string"}
    out["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {
        "description": "IntOrString is a type that can hold an int32 or a string.",
        "format": "int-or-string", "type": "string"}
    return out


def write(path, value):
    text = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)
    print(path.name, len(text), "->", path.stat().st_size)


def main():
    source, *modules = sys.argv[1:6]
    definitions = json.loads(Path(source).read_text())["$defs"]
    here = Path(__file__).parent
    write(here / "types.json.gz", types(definitions, Go(*modules)))
    write(here / "openapi.json.gz", openapi(definitions))


main()
