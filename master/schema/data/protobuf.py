#!/usr/bin/env python3
"""Writes protobuf.json.gz: how the API server's types look in Kubernetes' protobuf encoding.

Run it after generate.py: the definitions of types.json.gz say which messages are wanted, and which of a message's fields
are properties in JSON. The rest comes from the `generated.proto` files of the Go modules k8s.io/api, k8s.io/apimachinery,
k8s.io/apiextensions-apiserver and k8s.io/kube-aggregator (Apache-2.0; see NOTICE), of which only names, numbers and types of fields are taken.

usage: protobuf.py GO_API GO_APIMACHINERY GO_APIEXTENSIONS GO_AGGREGATOR
  e.g. protobuf.py k8s.io/{api,apimachinery,apiextensions-apiserver,kube-aggregator}@v0.36.3

protobuf.json.gz is a list, one entry a message: [name of its definition, [[field number, JSON name, type], …]].
Types: s string, b bool, i int32, l int64, f double, B bytes (base64 in JSON), q quantity, o int-or-string, t time, m time with
microseconds, r bytes that hold JSON, [T list, {T map from strings, #N the message at index N, (T a message that only
wraps a list of T, +N the message at index N whose fields are the holder's own in JSON, ?N the message at index N of whose
fields one stands for the whole in JSON (JSONSchemaPropsOrBool and its kin).
"""

import gzip
import json
import re
import sys
from pathlib import Path

API, META = "k8s.io.api.", "k8s.io.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1."
REGISTRATION = "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1."
# As packages of protobuf are called, and as definitions are.
MODULES = [("apiextensions_apiserver", "apiextensions-apiserver"), ("kube_aggregator", "kube-aggregator")]
# Sent, but no definitions of types.json.gz.
EXTRA = [META + k for k in "Status PartialObjectMetadata PartialObjectMetadataList".split()]
SPECIAL = {
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "q",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "o",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "r",
    META + "Time": "t",
    META + "MicroTime": "m",
    META + "FieldsV1": "r",
    EXTENSIONS + "JSON": "r",
}
# Either this or that in JSON, a message with a field for each in protobuf.
UNIONS = {EXTENSIONS + f"JSONSchemaPropsOr{other}" for other in "Bool Array StringArray".split()}
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "l", "double": "f", "bytes": "B"}
MESSAGE = re.compile(r"^message (\w+) \{$(.*?)^\}", re.M | re.S)
STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}", re.M | re.S)
RENAMED = re.compile(r'`json:"([$\w-]+)[^"]*"[^`]* protobuf:"[^"]*name=(\w+)')
FIELD = re.compile(r"^\s*(optional|repeated|map)\s*(?:<string, )?([\w.]+)>?\s+(\w+) = (\d+);", re.M)


def read_messages(modules):
    """Message name -> [(label, type, field name, number)]; types are whole names."""
    messages = {}
    for file in sorted(file for module in modules for file in Path(module).rglob("generated.proto")):
        text = file.read_text()
        package = re.search(r"^package ([\w.]+);", text, re.M).group(1)
        renamed = json_names(file.parent)
        for name, body in MESSAGE.findall(text):
            messages[f"{package}.{name}"] = [
                (label, whole_name(kind, package), renamed.get((name, field), field), int(number))
                for label, kind, field, number in FIELD.findall(body)]
    return messages


def json_names(folder):
    """(struct, name in protobuf) -> name in JSON, which the tags of Go's structs tell: `uID` is `uid`."""
    return {(struct, protobuf): shown for file in folder.glob("*.go") for struct, body in
            STRUCT.findall(file.read_text()) for shown, protobuf in RENAMED.findall(body)}


def whole_name(kind, package):
    if kind in SCALARS:
        return kind
    return kind[1:] if kind.startswith(".") else f"{package}.{kind}"


def read_definitions(path):
    """Message name -> {property: type} as types.json.gz has them."""
    with gzip.open(path) as file:
        rows = json.load(file)
    return {message_name(name): {field[0]: field[1] for field in fields}
            for name, _, _, fields in rows}


def message_name(definition):
    name = definition.replace("io.k8s.", "k8s.io.", 1)
    for package, module in MODULES:
        name = name.replace(module, package)
    return name


def definition_name(message):
    name = message.replace("k8s.io.", "io.k8s.", 1)
    for package, module in MODULES:
        name = name.replace(package, module)
    return name


class Table:
    def __init__(self, messages, definitions):
        self.messages, self.definitions = messages, definitions
        self.index, self.rows = {}, []

    def add(self, name, properties=None):
        """The index of a message. `properties` are those of its holder when it is inlined."""
        if name not in self.index:
            self.index[name] = len(self.rows)
            self.rows.append([definition_name(name), []])
            known = properties if properties is not None else self.definitions.get(name)
            self.rows[self.index[name]][1] = [
                self.field(name, known, *field) for field in sorted(self.messages[name], key=lambda f: f[3])]
        return self.index[name]

    def field(self, owner, known, label, kind, name, number):
        if known is None or name in known:
            shown = None if known is None else known[name]
            code = self.type_of(kind, shown.lstrip("[{") if shown else None, shown, label)
            return [number, name, {"repeated": "[", "map": "{"}.get(label, "") + code]
        if kind in SCALARS or kind in SPECIAL or label != "optional":
            raise SystemExit(f"{owner}.{name} is no property, and no message that could be inlined")
        return [number, name, f"+{self.add(kind, known)}"]

    def type_of(self, kind, inner, shown, label):
        code = SCALARS.get(kind) or SPECIAL.get(kind)
        if code:
            if inner and inner != {"r": "*"}.get(code, code):
                raise SystemExit(f"{kind} is {shown} in JSON")
            return code
        if kind in UNIONS:
            return f"?{self.add(kind)}"
        fields = self.messages[kind]
        depth = {"optional": 0}.get(label, 1)
        if shown and shown[depth:].startswith("["):
            (_, item, name, number), = fields
            if (name, number) != ("items", 1):
                raise SystemExit(f"{kind} is a list in JSON and no wrapper in protobuf")
            return "(" + SCALARS[item]
        return f"#{self.add(kind)}"


def main():
    here = Path(__file__).parent
    messages, definitions = read_messages(sys.argv[1:5]), read_definitions(here / "types.json.gz")
    table = Table(messages, definitions)
    for name in list(definitions) + EXTRA:
        if name not in messages:
            print(f"no message: {name}", file=sys.stderr)
            continue
        table.add(name)
        if name.startswith((API, EXTENSIONS, REGISTRATION)) and name + "List" in messages:
            table.add(name + "List")
    text = json.dumps(table.rows, separators=(",", ":")).encode()
    with open(here / "protobuf.json.gz", "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)
    print(len(table.rows), "messages", len(text), "bytes")


main()
