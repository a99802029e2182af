package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"lunboot/cmd/lunboot/cli"
	"lunboot/web/download"
)

// What can be sent as a table is asked for by the same names everywhere.
func TestTheSameListsAreExportedByEveryWay(t *testing.T) {
	a := started(t, dataDir(t))
	answer, err := socketClient(a.dir).Get("http://lunboot/api/openapi.json")
	require.NoError(t, err)
	defer answer.Body.Close()
	var described struct {
		Paths map[string]struct {
			Get struct {
				Parameters []struct {
					Name   string
					Schema struct{ Enum []string }
				}
			}
		}
	}
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&described))
	var inAPI []string
	for _, p := range described.Paths["/api/v1/exports/{list}"].Get.Parameters {
		if p.Name == "list" {
			inAPI = p.Schema.Enum
		}
	}
	require.Equal(t, download.Names(), inAPI)
	list, _ := reflect.TypeFor[cli.ExportCmd]().FieldByName("List")
	require.Equal(t, download.Names(), strings.Split(list.Tag.Get("enum"), ","))
}
