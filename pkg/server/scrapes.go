package server

import (
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/schedule"
	"metrics-server/pkg/scrape"
)

// scrapes provides the state of scraping to the API.
type scrapes struct {
	*scrape.Scraper
	sink *sink
}

func (s scrapes) Scrape(node string) sample.Scrape {
	st, _ := s.Node(node)
	return sample.Scrape{Success: st.LastSuccess, Duration: st.Duration, Err: withRemedy(&st), Lacks: s.lacking(node)}
}

// lacking names the series that a node's response lacks, with the remedy; "" if it lacks none.
func (s scrapes) lacking(node string) string {
	if series := s.sink.lackedBy(node); series != "" {
		return "the answer lacks " + series + ": " + kubelet.RemedyRuntime
	}
	return ""
}

// withRemedy returns the scrape error of a node with its remedy, "" if there is none.
func withRemedy(st *schedule.TargetStatus) string {
	switch {
	case !st.Failing():
		return ""
	case st.Remedy == "":
		return st.Err.Error()
	}
	return st.Err.Error() + ": " + st.Remedy
}
