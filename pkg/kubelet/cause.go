package kubelet

// Cause is the kind of a failure, in a word or two: the label of a metric, which alerts and
// docs/troubleshooting.md refer to.
type Cause string

// The causes of an Error.
const (
	CauseX509            Cause = "x509" // a certificate, of either side
	CauseUnauthorized    Cause = "401"
	CauseForbidden       Cause = "403"
	CauseNotFound        Cause = "404"
	CauseTooManyRequests Cause = "429"
	CauseServerError     Cause = "5xx"
	CauseStatus          Cause = "http" // any other status
	CauseRedirect        Cause = "redirect"
	CauseNoToken         Cause = "no token"      // to show to the kubelet
	CauseNotKubelet      Cause = "not a kubelet" // something else answers
	CauseOwnPort         Cause = "own port"      // this server itself answers
	CauseTimeout         Cause = "timeout"
	CauseRefused         Cause = "connection refused"
	CauseNoRoute         Cause = "no route"
	CauseProxy           Cause = "proxy"
	CauseDNS             Cause = "dns"
	CauseNoAddress       Cause = "no address"
	CauseReset           Cause = "reset"
	CauseTooLarge        Cause = "body too large"
	CauseIncomplete      Cause = "incomplete"    // the answer ends within a line
	CauseNoSamples       Cause = "no samples"    // that are usable
	CauseKubeletError    Cause = "kubelet error" // reported in its answer
	CauseContentType     Cause = "content type"
	CauseOther           Cause = "other"
)
