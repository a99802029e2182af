package api_test

import (
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// The description is read by a library that has nothing in common with the one
// that writes it.
func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	h := open(t)
	a := h.must(http.StatusOK, "GET", "/api/openapi.json", "")
	doc, err := openapi3.NewLoader().LoadFromData(a.body)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	if doc.OpenAPI[:3] != "3.1" {
		t.Errorf("it is OpenAPI %s", doc.OpenAPI)
	}
}
