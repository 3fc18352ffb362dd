package doctor

import (
	"context"
	"errors"

	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/kubelettoken"
)

// token is the token shown to kubelets during an examination; if it is "", the doctor's own
// credentials are shown.
type token string

// Token implements kubelet.TokenSource.
func (t token) Token(context.Context) (shown string, own bool, err error) {
	return string(t), t == "", nil
}

// Refused implements kubelet.TokenSource.
func (token) Refused(string) {}

// tokens returns what kubelets are shown: a token of the account for kubelets, as in the server. If
// the doctor's credentials may not request one, they are shown instead, which is reported.
func (e *examination) tokens(ctx context.Context) (kubelet.TokenSource, *kubelettoken.Error) {
	t, _, err := kubelettoken.Request(ctx, e.api, e.tokensOf)
	if err == nil {
		return token(t), nil
	}
	failed, _ := errors.AsType[*kubelettoken.Error](err)
	if !kubelettoken.Refusal(err) {
		return nil, failed
	}
	e.report.add(NewLine(checkAccess, Warning,
		"kubelets are shown this command's own credentials, not a token of "+e.tokensOf.String(),
		err.Error(), failed.Remedy()))
	return token(""), nil
}
