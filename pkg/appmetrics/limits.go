package appmetrics

import (
	"cmp"
	"time"

	"metrics-server/pkg/fairshare"
)

// MaxValue is the largest amount that a value may have. A resource.Quantity, in thousandths of which the HPA
// controller calculates, holds little more.
const MaxValue = 1 << 50

// Limits that no setting changes. They keep one mistake, or one hostile pod or expression, from
// costing others memory or time.
const (
	minRange = 10 * time.Second
	maxRange = 10 * time.Minute // in total, where ranges are nested
	minStep  = time.Second      // of a subquery

	maxExpression = 4096 // bytes
	maxSelectors  = 20   // in an expression
	// maxDepth is how deep the parts of an expression may be nested. The engine looks at the time limit before it
	// evaluates a part, but negates all series of that part without looking again.
	maxDepth = 100

	// Label functions can multiply the length of a value. Four references to a value of maxValue
	// bytes, once, are harmless.
	maxReferences = 4

	maxName   = 512  // bytes of a metric's or label's name
	maxValue  = 1024 // bytes of a label's value
	maxLabels = 64   // of a series

	// maxMetricLabels is how many bytes all labels of a metric in protobuf may have.
	maxMetricLabels = 16 << 10
	// maxPattern is how many instructions a regular expression may compile to. The longest value of a label
	// takes at most that many steps for each of its bytes.
	maxPattern = 500
	// maxPatterns limits the estimated number of instructions to which the regular expressions of an expression compile.
	maxPatterns = 20_000
	// maxSelector is how many bytes metric.selector may have as a selector of PromQL.
	maxSelector = 2048

	maxLines = 20000 // of wanted families on a page

	// maxSelected is how many series all selectors of an evaluation may select together.
	maxSelected = 50000

	// maxNames is how many families of a page are considered as suggestions for a misspelled name.
	maxNames = 1000

	// explainEvery is how often a page that lacks what is wanted is read once more for what it has.
	explainEvery = 5 * time.Minute
)

// Config sets up a Store. A zero field means its default.
type Config struct {
	// Interval is how often pods are scraped. Default 15 s.
	Interval time.Duration
	// MaxPage is how many bytes a page may have, decompressed. Default 8 MiB.
	MaxPage int
	// MaxSeries is how many series are kept of a pod. Default 1,000.
	MaxSeries int
	// MaxSamples is how many samples an evaluation may hold at a time. Default 1,000,000, which
	// take 24 MiB.
	MaxSamples int
	// Timeout is how long an evaluation may take. Default 2 s.
	Timeout time.Duration
	// Parallel is how many evaluations run at a time; others wait. Default 4.
	Parallel int
	// Memory is the memory for series that namespaces share, in bytes. Nil: there is no limit.
	Memory *fairshare.Pool
}

func (c Config) withDefaults() Config {
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.MaxPage = cmp.Or(c.MaxPage, 8<<20)
	c.MaxSeries = cmp.Or(c.MaxSeries, 1000)
	c.MaxSamples = cmp.Or(c.MaxSamples, 1_000_000)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Second)
	c.Parallel = cmp.Or(c.Parallel, 4)
	return c
}

// Defaults of what an autoscaler does not say.
const (
	DefaultInterval = 15 * time.Second
	DefaultWindow   = 30 * time.Second
)

// holdFor is how long the last values are served without a new page.
func holdFor(interval time.Duration) time.Duration { return max(4*interval, time.Minute) }
