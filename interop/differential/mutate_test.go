package differential

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
)

// A site is a place in a structure that can be changed; its path names fields, with []
// for any element of a vector.
type site struct {
	path  string
	value reflect.Value
}

// sites lists all places below v that are encoded.
func sites(path string, v reflect.Value, list []site) []site {
	switch v.Kind() {
	case reflect.Pointer:
		list = append(list, site{path, v})
		if !v.IsNil() {
			list = sites(path, v.Elem(), list)
		}
	case reflect.Slice:
		list = append(list, site{path, v})
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				list = sites(path+"[]", v.Index(i), list)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); present(v, f) {
				name := f.Name
				if path != "" {
					name = path + "." + name
				}
				list = sites(name, v.Field(i), list)
			}
		}
	default:
		list = append(list, site{path, v})
	}
	return list
}

// donors are byte strings of a group by the name of their field.
type donors map[string][][]byte

func (d donors) collect(v any) {
	for _, s := range sites("", reflect.ValueOf(v), nil) {
		if s.value.Kind() == reflect.Slice && s.value.Type().Elem().Kind() == reflect.Uint8 && s.value.Len() > 0 {
			name := lastName.FindString(s.path)
			d[name] = append(d[name], slices.Clone(s.value.Bytes()))
		}
	}
}

var lastName = regexp.MustCompile(`\w*\W*$`)

// mutate changes what v points to at one place and tells how; only limits the paths if it
// is not nil. It returns "" if it changed nothing.
func mutate(rng *rand.Rand, v any, d donors, only *regexp.Regexp) string {
	list := sites("", reflect.ValueOf(v).Elem(), nil)
	if only != nil {
		list = slices.DeleteFunc(list, func(s site) bool { return !only.MatchString(s.path) })
	}
	if len(list) == 0 {
		return ""
	}
	s := list[rng.IntN(len(list))]
	before := fmt.Sprint(deref(s.value))
	how := change(rng, s, d)
	if fmt.Sprint(deref(s.value)) == before {
		return ""
	}
	return s.path + " " + how
}

func deref(v reflect.Value) any {
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	return v.Interface()
}

func change(rng *rand.Rand, s site, d donors) (how string) {
	v := s.value
	pick := func(names ...string) string { return names[rng.IntN(len(names))] }
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
			return "present"
		}
		v.SetZero()
		return "absent"
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return changeBytes(rng, s, d)
		}
		n := v.Len()
		if n == 0 {
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
			return "one more, zero"
		}
		i := rng.IntN(n)
		switch how = pick("drop", "twice", "twice in a row", "swapped", "none", "one more, zero"); how {
		case "drop":
			v.Set(reflect.AppendSlice(v.Slice3(0, i, i), v.Slice(i+1, n)))
		case "twice":
			v.Set(reflect.Append(v, v.Index(i)))
		case "twice in a row":
			tail := reflect.AppendSlice(reflect.New(v.Type()).Elem(), v.Slice(i, n))
			v.Set(reflect.AppendSlice(v.Slice3(0, i+1, i+1), tail))
		case "swapped":
			j := rng.IntN(n)
			a, b := reflect.ValueOf(v.Index(i).Interface()), reflect.ValueOf(v.Index(j).Interface())
			v.Index(i).Set(b)
			v.Index(j).Set(a)
		case "none":
			v.SetZero()
		case "one more, zero":
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
		}
		return how
	default:
		x, width := v.Uint(), v.Type().Bits()
		switch how = pick("+1", "-1", "=0", "=max", "=small", "bit"); how {
		case "+1":
			x++
		case "-1":
			x--
		case "=0":
			x = 0
		case "=max":
			x = 1<<width - 1
		case "=small":
			x = rng.Uint64N(12)
		case "bit":
			x ^= 1 << rng.IntN(width)
		}
		v.SetUint(x & (1<<width - 1))
		return how
	}
}

func changeBytes(rng *rand.Rand, s site, d donors) (how string) {
	b := slices.Clone(s.value.Bytes())
	hows := []string{"bit", "cut", "longer", "empty", "zeros", "random"}
	others := d[lastName.FindString(s.path)]
	if len(others) > 0 {
		hows = append(hows, "of another", "of another", "of another")
	}
	how = hows[rng.IntN(len(hows))]
	switch {
	case how == "of another":
		b = slices.Clone(others[rng.IntN(len(others))])
	case how == "longer":
		b = append(b, 0)
	case len(b) == 0:
		return ""
	case how == "bit":
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	case how == "cut":
		b = b[:len(b)-1]
	case how == "empty":
		b = nil
	case how == "zeros":
		clear(b)
	case how == "random":
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	}
	s.value.SetBytes(b)
	return how
}

// damage changes encoded bytes blindly.
func damage(rng *rand.Rand, data []byte) (out []byte, how string) {
	out = slices.Clone(data)
	switch rng.IntN(8) {
	case 0:
		return out[:rng.IntN(len(out))], "truncated"
	case 1:
		return append(out, byte(rng.Uint32())), "byte appended"
	case 2:
		i := rng.IntN(len(out))
		return slices.Delete(out, i, min(len(out), i+1+rng.IntN(8))), "bytes deleted"
	case 3:
		return slices.Insert(out, rng.IntN(len(out)), byte(rng.Uint32())), "byte inserted"
	case 4:
		out[rng.IntN(len(out))] = byte(rng.Uint32())
		return out, "byte changed"
	default:
		out[rng.IntN(len(out))] ^= 1 << rng.IntN(8)
		return out, "bit flipped"
	}
}

// spoil encodes v with a wrong length or presence byte.
func spoil(rng *rand.Rand, v any) (out []byte, how string) {
	for range 20 {
		how = spoils[rng.IntN(len(spoils))]
		if rng.IntN(6) == 0 {
			how = spoilPresent
		}
		if out, ok := marshalSpoiled(v, rng.IntN(60), how); ok {
			return out, how
		}
	}
	return nil, ""
}
