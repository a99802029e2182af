// Package typed reads what people type into a page's forms, with the field that is
// at fault, and puts it back into a form that was refused.
package typed

import (
	"errors"

	"lunboot/store"
)

// Named gives an error about one value the name of the field that it was typed
// into.
func Named(field string, err error) error {
	var e *store.Error
	if !errors.As(err, &e) {
		return err
	}
	is := *e
	is.Field = field
	return &is
}
