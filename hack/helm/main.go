// Command helm packages deploy/helm/metrics-server for a release: with the image, the version and the runbooks' URL
// set, and the same bytes each time. Its tests check the chart.
//
//	go run . -o ../../dist -image registry.example/metrics-server:v1.2.3 -app-version v1.2.3
package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
)

// dir is the chart, seen from this module's directory, where `go run .` and `go test` run.
const dir = "../../deploy/helm/metrics-server"

func main() {
	to := flag.String("o", "", "the `directory` to write to (required)")
	image := flag.String("image", "localhost/metrics-server:dev", "the server's image, `NAME:TAG`")
	appVersion := flag.String("app-version", "dev", "the server's `version`")
	docs := flag.String("docs", "", "the `URL` that the alerts' runbooks are below, or none: they stay paths in the "+
		"repository")
	flag.Parse()
	file, err := pack(*to, *image, *appVersion, *docs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
		os.Exit(1)
	}
	fmt.Println(file)
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
	if to == "" {
		return "", errors.New("-o is required: the directory to write to")
	}
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
