package server

import (
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
)

// scrapes shows to the API how scraping goes.
type scrapes struct {
	*scrape.Scraper
	sink *sink
}

func (s scrapes) Scrape(node string) sample.Scrape {
	st, _ := s.Node(node)
	return sample.Scrape{Success: st.LastSuccess, Duration: st.Duration, Err: withRemedy(&st), Lacks: s.lacking(node)}
}

// lacking says which series a node's answer lacks and what can be done about it, "" if it lacks none.
func (s scrapes) lacking(node string) string {
	if series := s.sink.lackedBy(node); series != "" {
		return "the answer lacks " + series + ": " + kubelet.RemedyRuntime
	}
	return ""
}

// withRemedy is the error of a node with what can be done about it, "" if there is none.
func withRemedy(st *scrape.NodeStatus) string {
	switch {
	case !st.Failing():
		return ""
	case st.Remedy == "":
		return st.Err.Error()
	}
	return st.Err.Error() + ": " + st.Remedy
}
