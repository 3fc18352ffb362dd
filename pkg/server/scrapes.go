package server

import (
	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
)

// scrapes shows to the API how scraping goes.
type scrapes struct{ *scrape.Scraper }

func (s scrapes) Scrape(node string) sample.Scrape {
	st, _ := s.Node(node)
	return sample.Scrape{Success: st.LastSuccess, Duration: st.Duration, Err: withRemedy(&st)}
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
