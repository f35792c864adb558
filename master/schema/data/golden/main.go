// Writes cases of golden/protobuf.jsonl.gz: of each kind that is named an object with every field set, one whose every struct
// is there and empty, and one that has only a name, as Go encodes them.
//
// usage, in a module that requires k8s.io/client-go, k8s.io/apiextensions-apiserver and k8s.io/kube-aggregator v0.36.3:
//   go run . "batch/v1 Job" "v1 PersistentVolume" … | gzip >> protobuf.jsonl.gz
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	extensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	registration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

type filler struct {
	full bool
	next int64
	// How many schemas lie around what is filled.
	schemas int
}

func (f *filler) number() int64 { f.next++; return f.next }

// special sets the types that encode themselves.
func (f *filler) special(v reflect.Value) bool {
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		if f.full {
			*p = metav1.NewTime(now.Truncate(time.Second))
		}
	case *metav1.MicroTime:
		if f.full {
			*p = metav1.NewMicroTime(now)
		}
	case *metav1.Duration:
		if f.full {
			*p = metav1.Duration{Duration: time.Duration(f.number()) * time.Second}
		}
	case *resource.Quantity:
		if f.full {
			*p = resource.MustParse(fmt.Sprintf("%dMi", f.number()))
		} else {
			*p = resource.MustParse("0")
		}
	case *intstr.IntOrString:
		if !f.full {
			*p = intstr.FromInt32(0)
		} else if n := f.number(); n%2 == 0 {
			*p = intstr.FromInt32(int32(n))
		} else {
			*p = intstr.FromString(fmt.Sprintf("%d%%", n))
		}
	case *metav1.FieldsV1:
		if f.full {
			p.Raw = []byte(`{"a": [1, "x", null, {"b": true}]}`)
		}
	case *runtime.RawExtension:
		if f.full {
			p.Raw = []byte(`{"r":[1,"x"]}`)
		}
	case *extensions.JSON:
		if f.full {
			p.Raw = []byte(`{"j":[1.5,"x"]}`)
		} else {
			p.Raw = []byte("0")
		}
	case *extensions.JSONSchemaPropsOrArray:
		p.Schema = f.schema()
	case *extensions.JSONSchemaPropsOrBool:
		if p.Allows = f.full; f.full {
			p.Schema = f.schema()
		}
	case *extensions.JSONSchemaPropsOrStringArray:
		p.Property = []string{"x"}
	case *extensions.JSONSchemaProps:
		// They hold each other: one inside the other is enough.
		if f.schemas > 1 {
			p.Type = "string"
			return true
		}
		f.schemas++
		f.fields(v, 10)
		f.schemas--
	default:
		return false
	}
	return true
}

func (f *filler) schema() *extensions.JSONSchemaProps {
	schema := &extensions.JSONSchemaProps{}
	f.fill(reflect.ValueOf(schema).Elem(), 10)
	return schema
}

func (f *filler) fields(v reflect.Value, depth int) {
	for i := 0; i < v.NumField(); i++ {
		if v.Type().Field(i).Type != reflect.TypeOf(metav1.TypeMeta{}) {
			f.fill(v.Field(i), depth+1)
		}
	}
}

func (f *filler) fill(v reflect.Value, depth int) {
	if v.CanAddr() && f.special(v) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		f.fields(v, depth)
	case reflect.Pointer:
		kind := v.Type().Elem().Kind()
		if depth < 20 && (f.full || kind == reflect.Struct) {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if f.full {
				v.SetBytes([]byte{0, 1, 2, 0xff})
			}
			return
		}
		n := 1
		if f.full && v.Type().Elem().Kind() == reflect.String {
			n = 2
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := 0; i < n; i++ {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		keys := []string{""}
		if f.full {
			keys = []string{"key-b", "key-a"}
		}
		for _, key := range keys {
			value := reflect.New(v.Type().Elem()).Elem()
			f.fill(value, depth+1)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
		}
	case reflect.String:
		if f.full {
			n := f.number()
			text := fmt.Sprintf("text-%d", n)
			if n%7 == 0 {
				text += "é"
			}
			v.SetString(text)
		}
	case reflect.Bool:
		v.SetBool(f.full)
	case reflect.Float64:
		if f.full {
			v.SetFloat(float64(f.number()) + 0.5)
		}
	case reflect.Int32:
		if f.full {
			n := f.number()
			if n%2 == 1 {
				n = -n
			} else {
				n *= 1000
			}
			v.SetInt(n)
		}
	case reflect.Int64:
		if f.full {
			n := f.number()
			if n%2 == 1 {
				n = -n
			} else {
				n <<= 32
			}
			v.SetInt(n)
		}
	}
}

func emit(object runtime.Object, gvk schema.GroupVersionKind) {
	object.GetObjectKind().SetGroupVersionKind(gvk)
	var packed bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(object, &packed); err != nil {
		panic(err)
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	line, _ := json.Marshal(map[string]any{"json": json.RawMessage(text), "hex": hex.EncodeToString(packed.Bytes())})
	fmt.Println(string(line))
}

func main() {
	if err := extensions.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	if err := registration.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	for _, name := range os.Args[1:] {
		version, kind, _ := strings.Cut(name, " ")
		gv, err := schema.ParseGroupVersion(version)
		if err != nil {
			panic(err)
		}
		gvk := gv.WithKind(kind)
		for _, full := range []bool{true, false} {
			object, err := scheme.Scheme.New(gvk)
			if err != nil {
				panic(err)
			}
			(&filler{full: full}).fill(reflect.ValueOf(object).Elem(), 0)
			emit(object, gvk)
		}
		object, _ := scheme.Scheme.New(gvk)
		object.(metav1.Object).SetName("x")
		emit(object, gvk)
	}
}
