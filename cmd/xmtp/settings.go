package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

const (
	configFlag = "config"
	envPrefix  = "XMTP_NODE_"
)

// envName is the environment variable of a flag.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setting tells whether a flag can also be set by environment and file.
func setting(f *pflag.Flag) bool { return f.Name != configFlag && f.Name != "help" }

// complete sets the flags that weren't given on the command line from the
// environment and then from the config file, if there is one.
func complete(flags *pflag.FlagSet, config string, env func(string) (string, bool)) error {
	var failure error
	flags.VisitAll(func(f *pflag.Flag) {
		text, given := env(envName(f.Name))
		if !given || text == "" || f.Changed || !setting(f) || failure != nil {
			return
		}
		if err := assign(f, text); err != nil {
			failure = fmt.Errorf("environment variable %s: %w", envName(f.Name), err)
		}
	})
	if failure != nil || config == "" {
		return failure
	}
	return readConfig(flags, config)
}

// assign sets a flag from text that is not from the command line.
func assign(f *pflag.Flag, text string) error {
	if err := f.Value.Set(text); err != nil {
		switch f.Value.Type() {
		case "bool":
			err = errors.New("must be true or false")
		case "duration":
			err = errors.New(`must be a duration such as "5s" or "1m30s"`)
		}
		return fmt.Errorf("%q: %w", text, err)
	}
	f.Changed = true
	return nil
}

// readConfig sets flags that have no value yet from a TOML file. Its errors
// name file and line.
func readConfig(flags *pflag.FlagSet, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	var values map[string]toml.Primitive
	meta, err := toml.Decode(string(text), &values)
	if err != nil {
		return atLine(path, err)
	}
	// Keys lists each key in the order of the file, those inside tables too.
	for _, key := range meta.Keys() {
		if len(key) > 1 {
			continue
		}
		if err := meta.PrimitiveDecode(values[key[0]], &configValue{flags, key[0]}); err != nil {
			return atLine(path, err)
		}
	}
	return nil
}

func atLine(path string, err error) error {
	if parse, ok := errors.AsType[toml.ParseError](err); ok {
		message := parse.Message
		if cause := errors.Unwrap(parse); cause != nil {
			message = cause.Error()
		}
		return fmt.Errorf("%s:%d: %s", path, parse.Position.Line, message)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// A configValue puts the value of one key of the file into its flag. It is a
// [toml.Unmarshaler] because the line of a key is only known while decoding.
type configValue struct {
	flags *pflag.FlagSet
	key   string
}

func (v *configValue) UnmarshalTOML(value any) error {
	f := v.flags.Lookup(v.key)
	if f == nil || !setting(f) {
		return fmt.Errorf("unknown setting %q; there are: %s", v.key, strings.Join(settingNames(v.flags), ", "))
	}
	text, err := configText(f, value)
	if err != nil {
		return err
	}
	if f.Changed {
		return nil
	}
	if err := assign(f, text); err != nil {
		return fmt.Errorf("%s = %w", v.key, err)
	}
	return nil
}

// configText is a value of the file as it would be on the command line.
func configText(f *pflag.Flag, value any) (string, error) {
	switch value := value.(type) {
	case bool:
		if f.Value.Type() == "bool" {
			return strconv.FormatBool(value), nil
		}
	case int64:
		if f.Value.Type() == numberType {
			return strconv.FormatInt(value, 10), nil
		}
	case string:
		if f.Value.Type() != "bool" && f.Value.Type() != numberType && value != "" {
			return value, nil
		}
	case []any:
		var texts []string
		for _, entry := range value {
			if text, ok := entry.(string); ok {
				texts = append(texts, text)
			}
		}
		if f.Value.Type() == listType && len(texts) == len(value) && len(texts) > 0 {
			return strings.Join(texts, ","), nil
		}
	}
	switch f.Value.Type() {
	case "bool":
		return "", fmt.Errorf("%s must be true or false, without quotes", f.Name)
	case numberType:
		return "", fmt.Errorf("%s must be a number, without quotes", f.Name)
	case listType:
		return "", fmt.Errorf(`%s must be a list of texts, such as ["a", "b"]`, f.Name)
	}
	return "", fmt.Errorf("%s must be text in quotes", f.Name)
}

func settingNames(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if setting(f) {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}

// Types of flags that have a form of their own in the file.
const (
	numberType = "number"
	listType   = "list"
)

// An address is a flag of the form HOST:PORT.
type address string

func (a *address) String() string { return string(*a) }
func (a *address) Type() string   { return "host:port" }

func (a *address) Set(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("must be HOST:PORT, such as 127.0.0.1:5556")
	}
	*a = address(text)
	return nil
}

// An optionalAddress is a flag of the form HOST:PORT, or off, which is "".
type optionalAddress string

func (a *optionalAddress) Type() string { return "host:port" }

func (a *optionalAddress) String() string {
	if *a == "" {
		return "off"
	}
	return string(*a)
}

func (a *optionalAddress) Set(text string) error {
	if text == "" || text == "off" {
		*a = ""
		return nil
	}
	if (*address)(a).Set(text) != nil {
		return errors.New("must be HOST:PORT, such as 127.0.0.1:5557, or off")
	}
	return nil
}

// A size is a flag that counts bytes: a number above 0, with a unit or without.
type size int64

var sizeUnits = []struct {
	name  string
	bytes size
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

func (s *size) Type() string { return "size" }

func (s *size) String() string {
	for _, unit := range sizeUnits {
		if *s%unit.bytes == 0 {
			return strconv.FormatInt(int64(*s/unit.bytes), 10) + unit.name
		}
	}
	return "" // never: any number is a multiple of 1
}

func (s *size) Set(text string) error {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/int64(unit.bytes) {
			break
		}
		*s = size(n) * unit.bytes
		return nil
	}
	return errors.New("must be a number of bytes above 0, such as 500000, 64MiB or 4GiB")
}

// A choice is a flag with few possible values.
type choice struct {
	value string
	from  []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "word" }

func (c *choice) Set(text string) error {
	if !slices.Contains(c.from, text) {
		return fmt.Errorf("must be one of %s", strings.Join(c.from, ", "))
	}
	c.value = text
	return nil
}
