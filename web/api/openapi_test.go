package api_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// The description is read by a library that has nothing in common with the one
// that writes it.
func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	h := open(t)
	a := h.must(http.StatusOK, "GET", "/api/openapi.json", "")
	if path := os.Getenv("LUNBOOT_OPENAPI"); path != "" { // for a generator of clients
		if err := os.WriteFile(path, a.body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
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
