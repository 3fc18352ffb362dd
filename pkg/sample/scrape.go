package sample

import "time"

// Scrape is the state of scraping one node.
type Scrape struct {
	Success  time.Time     // when its kubelet last answered, by this server's clock; zero if never
	Duration time.Duration // of the last scrape; zero if there was none
	Err      string        // why the last scrape failed, and the remedy; empty if it succeeded
	Lacks    string        // the series that the last answer lacks, and the remedy; empty if none
}
