// Command helm renders, checks and packages deploy/helm/metrics-server, without Helm installed: it is built on Helm's
// own library.
//
//	go run . template [-name metrics-server] [-namespace kube-system] [VALUES.yaml ...]
//	go run . lint [VALUES.yaml ...]
//	go run . package -o ../../dist -image registry.example/metrics-server:v1.2.3 -app-version v1.2.3
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
)

// dir is the chart, seen from this module's directory, where `go run .` and `go test` run.
const dir = "../../deploy/helm/metrics-server"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	// Helm's library logs each symbolic link in files/ whenever it reads the chart.
	slog.SetLogLoggerLevel(slog.LevelWarn)
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	switch command {
	case "template":
		name := flags.String("name", "metrics-server", "the release's `name`")
		namespace := flags.String("namespace", "kube-system", "the release's `namespace`")
		return parsed(flags, args, func(values map[string]any) error {
			c, err := loader.LoadDir(dir)
			if err != nil {
				return err
			}
			manifest, _, err := render(c, values, *name, *namespace, nil)
			if err == nil {
				_, err = io.WriteString(out, manifest)
			}
			return err
		})
	case "lint":
		return parsed(flags, args, func(values map[string]any) error {
			result := lint.RunAll(dir, values, "kube-system")
			for _, m := range result.Messages {
				fmt.Fprintln(out, m)
			}
			if result.HighestSeverity >= support.WarningSev {
				return errors.New("the chart does not pass, see above")
			}
			return nil
		})
	case "package":
		to := flags.String("o", "", "the `directory` to write to (required)")
		image := flags.String("image", "localhost/metrics-server:dev", "the server's image, `NAME:TAG`")
		appVersion := flags.String("app-version", "dev", "the server's `version`")
		docs := flags.String("docs", "", "the `URL` that the alerts' runbooks are below, or none: they stay paths in "+
			"the repository")
		if err := flags.Parse(args); err != nil {
			return err
		}
		if *to == "" || flags.NArg() > 0 {
			return errors.New("package takes flags only, and -o is required: the directory to write to")
		}
		file, err := pack(*to, *image, *appVersion, *docs)
		if err == nil {
			fmt.Fprintln(out, file)
		}
		return err
	default:
		return fmt.Errorf("command %q: want template, lint or package", command)
	}
}

// parsed calls do with the merged values of all files that the arguments name; later files take
// precedence.
func parsed(flags *flag.FlagSet, args []string, do func(values map[string]any) error) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	values := map[string]any{}
	for _, file := range flags.Args() {
		v, err := readValues(file)
		if err != nil {
			return err
		}
		values = loader.MergeMaps(values, v)
	}
	return do(values)
}

func readValues(file string) (map[string]any, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	values, err := loader.LoadValues(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("values in %s: %w", file, err)
	}
	return values, nil
}

// render returns the objects and the notes of a release. The templates look up objects in the cluster, if there is one.
func render(
	c *chart.Chart, values map[string]any, name, namespace string, cluster engine.ClientProvider,
) (manifest, notes string, err error) {
	release := common.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}
	v, err := util.ToRenderValues(c, values, release, nil)
	if err != nil {
		return "", "", err
	}
	var files map[string]string
	if cluster == nil {
		files, err = engine.Render(c, v)
	} else {
		files, err = engine.RenderWithClientProvider(c, v, cluster)
	}
	if err != nil {
		return "", "", err
	}
	var b strings.Builder
	for _, file := range slices.Sorted(maps.Keys(files)) {
		content := strings.TrimSpace(files[file])
		switch {
		case path.Base(file) == "NOTES.txt":
			notes = content + "\n"
		case content != "":
			fmt.Fprintf(&b, "---\n%s\n", strings.TrimPrefix(content, "---\n"))
		}
	}
	return b.String(), notes, nil
}

// The lines of values.yaml that packaging replaces.
const (
	repositoryLine = "  repository: localhost/metrics-server\n"
	tagLine        = "  tag: \"\"\n"
)

var (
	tag = regexp.MustCompile(`^v([0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?)$`)
	// The output of hack/ldflags.sh for a commit without a tag of its own, with uncommitted changes,
	// and without git.
	untagged = regexp.MustCompile(`^v0\.0\.0-|-[0-9]+-g[0-9a-f]+$|-dirty$`)
)

// chartVersion returns the version of the chart in a release of the server, or "" if appVersion is
// no release.
func chartVersion(appVersion string) string {
	m := tag.FindStringSubmatch(appVersion)
	if m == nil || untagged.MatchString(appVersion) {
		return ""
	}
	return m[1]
}

// pack writes the chart as an archive and returns its name. The same chart gives the same bytes.
func pack(to, image, appVersion, docs string) (string, error) {
	// The tag is what follows the last colon, unless that is a registry's port.
	i := strings.LastIndexByte(image, ':')
	if i <= strings.LastIndexByte(image, '/') || i == len(image)-1 {
		return "", fmt.Errorf("-image %q: want NAME:TAG", image)
	}
	if appVersion == "" {
		return "", errors.New("-app-version is empty: want the server's version")
	}
	c, err := loader.LoadDir(dir)
	if err != nil {
		return "", err
	}
	c.Metadata.AppVersion = appVersion
	// Each release has a version of its own, so that no push replaces a chart that is published.
	c.Metadata.Version = cmp.Or(chartVersion(appVersion), c.Metadata.Version)
	c.ModTime = time.Unix(0, 0)
	c.SchemaModTime = c.ModTime
	for _, f := range slices.Concat(c.Raw, c.Templates, c.Files) {
		f.ModTime = c.ModTime
		if f.Name != chartutil.ValuesfileName {
			continue
		}
		for from, to := range map[string]string{
			repositoryLine: fmt.Sprintf("  repository: %q\n", image[:i]),
			tagLine:        fmt.Sprintf("  tag: %q\n", image[i+1:]),
		} {
			if bytes.Count(f.Data, []byte(from)) != 1 {
				return "", fmt.Errorf("%s does not have the line %q once: packaging would leave the image as it is", f.Name, from)
			}
			f.Data = bytes.Replace(f.Data, []byte(from), []byte(to), 1)
		}
	}
	for _, f := range c.Files {
		if strings.HasSuffix(f.Name, "alerts.yaml") && docs != "" {
			f.Data = bytes.ReplaceAll(f.Data, []byte("runbook_url: "), []byte("runbook_url: "+docs+"/"))
		}
	}
	return chartutil.Save(c, to)
}
