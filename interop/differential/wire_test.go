package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// The presentation language of §2.1 by reflection, so that whatever a structure holds
// can be changed by its name. Integers are themselves, []byte is opaque<V>, another slice
// is a vector, and a pointer is optional<T>. A field tagged if:"Other=1|2" is there only
// if Other has one of these values, with if:"Other!=1|2" if it has none of them; wire:"-"
// is a field that is not encoded.

// A spoiler encodes one length or presence byte wrongly: the at-th of all.
type spoiler struct {
	at    int
	how   string
	count int
}

// The ways to spoil.
const (
	spoilLong    = "over-long length"   // a longer prefix than is needed
	spoilMore    = "length too big"     // by one
	spoilLess    = "length too small"   // by one
	spoilPrefix  = "length prefix 11"   // which §2.1.2 reserves
	spoilPresent = "presence 2 or more" // neither 0 nor 1
)

var spoils = []string{spoilLong, spoilMore, spoilLess, spoilPrefix}

type encoder struct {
	out   []byte
	spoil *spoiler
}

func marshal(v any) []byte {
	e := encoder{}
	e.value(reflect.ValueOf(v))
	return e.out
}

// marshalSpoiled encodes v with one spoiled length; ok is false if there is no such one.
func marshalSpoiled(v any, at int, how string) (out []byte, ok bool) {
	e := encoder{spoil: &spoiler{at: at, how: how}}
	e.value(reflect.ValueOf(v))
	return e.out, e.spoil.count > at
}

func (e *encoder) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Uint8:
		e.out = append(e.out, byte(v.Uint()))
	case reflect.Uint16:
		e.out = binary.BigEndian.AppendUint16(e.out, uint16(v.Uint()))
	case reflect.Uint32:
		e.out = binary.BigEndian.AppendUint32(e.out, uint32(v.Uint()))
	case reflect.Uint64:
		e.out = binary.BigEndian.AppendUint64(e.out, v.Uint())
	case reflect.Pointer:
		if v.IsNil() {
			e.out = append(e.out, 0)
			return
		}
		present := byte(1)
		if e.spoil != nil && e.spoil.how == spoilPresent {
			if e.spoil.count == e.spoil.at {
				present = 2
			}
			e.spoil.count++
		}
		e.out = append(e.out, present)
		e.value(v.Elem())
	case reflect.Slice:
		var body []byte
		if v.Type().Elem().Kind() == reflect.Uint8 {
			body = v.Bytes()
		} else {
			sub := encoder{spoil: e.spoil}
			for i := range v.Len() {
				sub.value(v.Index(i))
			}
			body = sub.out
		}
		e.length(len(body))
		e.out = append(e.out, body...)
	case reflect.Struct:
		for i := range v.NumField() {
			if present(v, v.Type().Field(i)) {
				e.value(v.Field(i))
			}
		}
	default:
		panic("differential: no encoding of " + v.Type().String())
	}
}

func (e *encoder) length(n int) {
	size := 4
	switch {
	case n < 1<<6:
		size = 1
	case n < 1<<14:
		size = 2
	}
	if e.spoil != nil && e.spoil.how != spoilPresent {
		if e.spoil.count == e.spoil.at {
			switch e.spoil.how {
			case spoilLong:
				size = min(2*size, 4)
			case spoilMore:
				n++
			case spoilLess:
				n = max(n-1, 0)
			case spoilPrefix:
				e.out = append(e.out, 0xc0)
			}
		}
		e.spoil.count++
	}
	switch size {
	case 1:
		e.out = append(e.out, byte(n))
	case 2:
		e.out = binary.BigEndian.AppendUint16(e.out, uint16(n)|1<<14)
	default:
		e.out = binary.BigEndian.AppendUint32(e.out, uint32(n)|2<<30)
	}
}

// present tells whether a field of struct v is encoded.
func present(v reflect.Value, f reflect.StructField) bool {
	if f.Tag.Get("wire") == "-" {
		return false
	}
	condition, ok := f.Tag.Lookup("if")
	if !ok {
		return true
	}
	name, list, _ := strings.Cut(condition, "=")
	name, not := strings.CutSuffix(name, "!")
	at := v
	for part := range strings.SplitSeq(name, ".") {
		at = at.FieldByName(part)
	}
	is := slices.Contains(strings.Split(list, "|"), strconv.FormatUint(at.Uint(), 10))
	return is != not
}

var errDecode = errors.New("differential: malformed encoding")

// unmarshal decodes all of data into what v points to.
func unmarshal(data []byte, v any) error {
	rest, err := decode(data, reflect.ValueOf(v).Elem())
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes too many", errDecode, len(rest))
	}
	return err
}

func decode(data []byte, v reflect.Value) (rest []byte, err error) {
	switch v.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := int(v.Type().Size())
		if len(data) < n {
			return nil, errDecode
		}
		var x uint64
		for _, b := range data[:n] {
			x = x<<8 | uint64(b)
		}
		v.SetUint(x)
		return data[n:], nil
	case reflect.Pointer:
		if len(data) == 0 || data[0] > 1 {
			return nil, errDecode
		}
		if data[0] == 0 {
			return data[1:], nil
		}
		v.Set(reflect.New(v.Type().Elem()))
		return decode(data[1:], v.Elem())
	case reflect.Slice:
		if len(data) == 0 || data[0]>>6 == 3 {
			return nil, errDecode
		}
		size := 1 << (data[0] >> 6)
		if len(data) < size {
			return nil, errDecode
		}
		n := int(data[0] & 0x3f)
		for _, b := range data[1:size] {
			n = n<<8 | int(b)
		}
		if len(data) < size+n {
			return nil, errDecode
		}
		body := data[size : size+n]
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(slices.Clone(body))
			return data[size+n:], nil
		}
		v.SetZero()
		for len(body) > 0 {
			item := reflect.New(v.Type().Elem()).Elem()
			if body, err = decode(body, item); err != nil {
				return nil, err
			}
			v.Set(reflect.Append(v, item))
		}
		return data[size+n:], nil
	case reflect.Struct:
		for i := range v.NumField() {
			if !present(v, v.Type().Field(i)) {
				continue
			}
			if data, err = decode(data, v.Field(i)); err != nil {
				return nil, fmt.Errorf("%s: %w", v.Type().Field(i).Name, err)
			}
		}
		return data, nil
	}
	panic("differential: no encoding of " + v.Type().String())
}

// duplicate is a deep copy.
func duplicate[T any](v T) T {
	var c T
	copyInto(reflect.ValueOf(&c).Elem(), reflect.ValueOf(v))
	return c
}

func copyInto(to, from reflect.Value) {
	switch from.Kind() {
	case reflect.Pointer:
		if !from.IsNil() {
			to.Set(reflect.New(from.Type().Elem()))
			copyInto(to.Elem(), from.Elem())
		}
	case reflect.Slice:
		if !from.IsNil() {
			to.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
			for i := range from.Len() {
				copyInto(to.Index(i), from.Index(i))
			}
		}
	case reflect.Struct:
		for i := range from.NumField() {
			copyInto(to.Field(i), from.Field(i))
		}
	default:
		to.Set(from)
	}
}
