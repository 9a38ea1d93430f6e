package federation

import "net/url"

// ReadAnswer lets the fuzz target reach the parser of what comes back through the browser.
func ReadAnswer(query string) error {
	q, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	a, err := readAnswer(q)
	if err == nil {
		_ = a.refusal()
		_ = appleName(a.User)
	}
	return err
}

// Checked lets the fuzz target reach the check of what providers say.
func Checked(subject, email, name string) (Identity, error) {
	return Identity{Subject: subject, Email: email, EmailVerified: true, Name: name}.checked()
}

// Unseal lets the fuzz target reach the parser of cookies.
func Unseal(s Sealer, text string) error {
	var f flow
	return unseal(s, sealFlow, text, &f)
}

// ReadResponse lets the fuzz target reach the reader of SAML responses.
func ReadResponse(raw []byte) error {
	r, err := readResponse(raw)
	if err == nil {
		_ = r.refusal()
	}
	return err
}
