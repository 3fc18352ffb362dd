package app

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
)

// The incumbent ignores positional arguments, and the templates of manifests produce some by mistake:
// a flag with a blank before it, an empty string, the name of the program. A server that rejects them
// does not start when its image replaces the incumbent's. One that reads them as flags starts with
// settings that had no effect before, such as --kubelet-insecure-tls. So they are ignored, blanks and
// quotes elsewhere are removed, and each argument that was not taken literally is logged.

// odd is an argument that was not taken literally.
type odd struct {
	argument string
	readAs   string // "": it was ignored
	reason   string // why it was ignored
}

// addressTypesFlag lists node address types, which contain no blanks.
const addressTypesFlag = "kubelet-preferred-address-types"

// addressTypes are the address types that a Node can have.
var addressTypes = []string{
	string(corev1.NodeInternalIP), string(corev1.NodeHostName), string(corev1.NodeInternalDNS),
	string(corev1.NodeExternalIP), string(corev1.NodeExternalDNS),
}

// commandLine prepares the arguments of a process for root. If they name a subcommand, the rest is
// that command's and stays as it is. Otherwise they are the server's.
func commandLine(root *cobra.Command, args []string) (forCobra []string, odds []odd, err error) {
	words := slices.Clone(args)
	for len(words) > 0 {
		if words[0] = strings.TrimSpace(words[0]); words[0] != "" && filepath.Base(words[0]) != root.Name() {
			break
		}
		words = words[1:]
	}
	if len(words) > 0 && strings.HasPrefix(words[0], cobra.ShellCompRequestCmd) {
		return words, nil, nil
	}
	if found, _, err := root.Find(words); err == nil && found != root {
		return words, nil, nil
	}
	if len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		if names := root.SuggestionsFor(words[0]); len(names) > 0 {
			return nil, nil, fmt.Errorf("unknown command %q: did you mean `%s %s`?", words[0], root.Name(), names[0])
		}
	}
	forCobra, odds = readArguments(serverFlagSet(NewOptions()), args)
	return forCobra, odds, nil
}

// readArguments returns args in the form in which pflag parses them, and the arguments that it did
// not take literally. Mistakes that the incumbent also rejects stay in clean, for pflag to report.
func readArguments(fs *pflag.FlagSet, args []string) (clean []string, odds []odd) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		text := strings.TrimSpace(arg)
		if text == "--" {
			for _, rest := range args[i+1:] {
				odds = append(odds, odd{argument: rest, reason: "it follows --"})
			}
			return clean, odds
		}
		if !strings.HasPrefix(arg, "-") || text == "-" {
			before := ""
			if i > 0 {
				before = args[i-1]
			}
			odds = append(odds, odd{argument: arg, reason: whyPositional(fs, before, arg)})
			continue
		}
		f, value, hasValue, usual := splitFlag(fs, text)
		if f == nil {
			clean = append(clean, text)
			continue
		}
		usual = usual && text == arg
		if !hasValue && f.NoOptDefVal == "" && i+1 < len(args) {
			i++
			value, hasValue = args[i], true
			arg += " " + value
		}
		read := "--" + f.Name
		if hasValue {
			tidy := tidyValue(f, value)
			read += "=" + tidy
			usual = usual && tidy == value
		}
		clean = append(clean, read)
		if !usual {
			odds = append(odds, odd{argument: arg, readAs: read})
		}
	}
	return clean, odds
}

// whyPositional returns why arg, which follows the argument before, is not a flag.
func whyPositional(fs *pflag.FlagSet, before, arg string) string {
	text := unquote(arg)
	if text == "" {
		return "it is empty"
	}
	if strings.HasPrefix(text, "--") && text != arg {
		return "flags begin with two hyphens, not with a blank or a quotation mark: write " + text
	}
	if f, _, hasValue, _ := splitFlag(fs, strings.TrimSpace(before)); f != nil && f.NoOptDefVal != "" && !hasValue {
		if _, err := strconv.ParseBool(text); err == nil {
			return fmt.Sprintf("--%s takes its value after an equals sign: write --%s=%s", f.Name, f.Name, text)
		}
	}
	for _, dash := range []string{"–", "—", "−"} { // en dash, em dash, minus: from a text processor
		if strings.HasPrefix(text, dash) {
			return fmt.Sprintf("it begins with %q: flags begin with two hyphens", dash)
		}
	}
	return "it is neither a flag nor a command"
}

// blanks separate a flag from its value where somebody wrote both as one argument.
const blanks = " \t\r\n"

// splitFlag returns the flag of fs that text sets, and its value if text has one. It returns nil if
// there is no such flag, or if text is left to pflag. usual reports whether pflag would read text
// the same way.
func splitFlag(fs *pflag.FlagSet, text string) (f *pflag.Flag, value string, hasValue, usual bool) {
	body, long := strings.CutPrefix(text, "--")
	if !long {
		body = strings.TrimPrefix(text, "-")
	}
	end := strings.IndexAny(body, "="+blanks)
	if end < 0 {
		end = len(body)
	}
	if long || end > 1 && fs.Lookup(body[:end]) != nil { // -name is a mistake for --name
		if f = fs.Lookup(body[:end]); f == nil || end == len(body) {
			return f, "", false, long
		}
		return f, trimSeparator(body[end:]), true, long && body[end] == '='
	}
	if body == "" {
		return nil, "", false, false
	}
	if f = fs.ShorthandLookup(body[:1]); f == nil || len(body) == 1 {
		return f, "", false, true
	}
	if f.NoOptDefVal != "" && end != 1 {
		return nil, "", false, false // several flags of one letter
	}
	return f, trimSeparator(body[1:]), true, !strings.Contains(blanks, body[1:2])
}

// trimSeparator removes what separates a value from the name of its flag.
func trimSeparator(text string) string {
	if value, ok := strings.CutPrefix(text, "="); ok {
		return value
	}
	return strings.TrimPrefix(strings.TrimLeft(text, blanks), "=")
}

// unquote removes blanks around text, and quotes if they enclose all of it.
func unquote(text string) string {
	text = strings.TrimSpace(text)
	if len(text) < 2 {
		return text
	}
	quote, inner := text[:1], text[1:len(text)-1]
	if (quote == `"` || quote == `'`) && strings.HasSuffix(text, quote) && !strings.Contains(inner, quote) {
		return strings.TrimSpace(inner)
	}
	return text
}

// tidyValue returns value without what templates and hand-written manifests leave in it: blanks and
// quotes around it, and around each item of a list also brackets and empty items.
func tidyValue(f *pflag.Flag, value string) string {
	switch f.Value.Type() {
	case "stringSlice", "int32Slice":
		return tidyList(f.Name, value)
	case "bool":
		if v := strings.ToLower(unquote(value)); v == "true" || v == "false" {
			return v
		}
	}
	return unquote(value)
}

func tidyList(flag, value string) string {
	items, err := listItems(value)
	untidy := func(item string) bool { return item == "" || item != tidyItem(flag, item) }
	if err == nil && !slices.ContainsFunc(items, untidy) {
		return value
	}
	text := unquote(value)
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			text = inner
		}
	}
	separator := func(r rune) bool { return r == ',' }
	if flag == addressTypesFlag {
		separator = func(r rune) bool { return strings.ContainsRune(",;"+blanks, r) }
	}
	var tidy []string
	for item := range strings.FieldsFuncSeq(text, separator) {
		if item = tidyItem(flag, unquote(strings.Trim(item, `"'`+blanks))); item != "" {
			tidy = append(tidy, item)
		}
	}
	return strings.Join(tidy, ",")
}

// listItems splits value as pflag does.
func listItems(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	return csv.NewReader(strings.NewReader(value)).Read()
}

// tidyItem returns an item of a list as it was probably meant.
func tidyItem(flag, item string) string {
	item = unquote(item)
	if strings.HasPrefix(item, "[") || strings.HasSuffix(item, "]") {
		return strings.Trim(item, "[]")
	}
	if flag == addressTypesFlag {
		for _, t := range addressTypes {
			if strings.EqualFold(item, t) {
				return t
			}
		}
		if strings.ContainsAny(item, ",;"+blanks) {
			return "" // several
		}
	}
	return item
}

// flagError adds to a mistake of the command line what to write instead.
func flagError(cmd *cobra.Command, err error) error {
	var (
		unknown *pflag.NotExistError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if first, _, several := strings.Cut(name, " "); several && cmd.Flags().Lookup(first) != nil {
			return fmt.Errorf("%w: write each flag as an argument of its own", err)
		}
		if reason := removedFlags[name]; reason != "" {
			return fmt.Errorf("%w: %s; remove it", err, reason)
		}
		if near := nearestFlag(cmd.Flags(), name); near != "" {
			return fmt.Errorf("%w: did you mean --%s?", err, near)
		}
		return fmt.Errorf("%w: see %s --help for all flags", err, cmd.CommandPath())
	case errors.As(err, &invalid):
		switch invalid.GetFlag().Value.Type() {
		case "bool":
			return fmt.Errorf("%w: give true or false", err)
		case "duration":
			return fmt.Errorf("%w: give a duration with a unit, such as 15s", err)
		}
	}
	return err
}

// removedFlags are flags of earlier releases of the incumbent that it does not know any more, and why.
var removedFlags = func() map[string]string {
	const klog = "Kubernetes 1.26 removed it, and logs go to the standard error"
	m := map[string]string{
		"source": "only release 0.2 and earlier had it: the source is always /metrics/resource of the kubelets",
	}
	for _, name := range []string{
		"add-dir-header", "alsologtostderr", "log-backtrace-at", "log-dir", "log-file", "log-file-max-size",
		"logtostderr", "one-output", "skip-headers", "skip-log-headers", "stderrthreshold",
	} {
		m[name], m[strings.ReplaceAll(name, "-", "_")] = klog, klog
	}
	return m
}()

// nearestFlag returns the flag of fs that name was probably meant to be, or "".
func nearestFlag(fs *pflag.FlagSet, name string) string {
	plain := strings.NewReplacer("_", "-")
	candidates := &cobra.Command{SuggestionsMinimumDistance: 2}
	fs.VisitAll(func(f *pflag.Flag) {
		candidates.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	if names := candidates.SuggestionsFor(plain.Replace(strings.ToLower(name))); len(names) > 0 {
		return names[0]
	}
	return ""
}
