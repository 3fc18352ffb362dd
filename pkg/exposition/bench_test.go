package exposition

import (
	"bytes"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"metrics-server/pkg/sample"
)

// benchmarkBody is 30 pods of 2 containers: 43 KB.
func benchmarkBody() []byte { return payload(names(30, 2), 0) }

func BenchmarkParseText(b *testing.B) {
	body := benchmarkBody()
	run := func(b *testing.B, layout func() *Layout) {
		b.Helper()
		var p Parser
		var batch sample.Batch
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if err := p.ParseText(body, received, layout(), &batch); err != nil {
				b.Fatal(err)
			}
		}
		if len(batch.Containers) != 60 || batch.Refused.Total() != 0 {
			b.Fatal("the answer was not understood")
		}
	}
	var known Layout
	b.Run("steady", func(b *testing.B) { run(b, func() *Layout { return &known }) })
	b.Run("first", func(b *testing.B) { run(b, func() *Layout { return new(Layout) }) })
}

// BenchmarkExpfmt is the yardstick: the same bytes through the parser of prometheus/common, which
// leaves the samples still to be picked out of the families.
func BenchmarkExpfmt(b *testing.B) {
	body := benchmarkBody()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
	}
}
