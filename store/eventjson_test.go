package store_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"lunboot/store"
)

// Whatever field a Detail has or will have, alone or with all others, comes
// back as it was.
func TestADetailIsWrittenAsItIsRead(t *testing.T) {
	check := func(what string, d store.Detail) {
		t.Helper()
		var got store.Detail
		b := d.AppendJSON([]byte("before"))
		if string(b[:6]) != "before" {
			t.Fatalf("%s: what was there is gone: %s", what, b)
		}
		if err := json.Unmarshal(b[6:], &got); err != nil || !reflect.DeepEqual(got, d) {
			t.Errorf("%s: %s was read as %+v, %v", what, b[6:], got, err)
		}
	}
	check("nothing", store.Detail{})
	var all store.Detail
	fields := reflect.TypeFor[store.Detail]()
	for k := range fields.NumField() {
		var one store.Detail
		for _, d := range []*store.Detail{&one, &all} {
			switch f := reflect.ValueOf(d).Elem().Field(k); f.Interface().(type) {
			case string:
				f.SetString("a \"text\" with \\, \x00, \n, <b>, é, \u2028 and 𝄞, of " + fields.Field(k).Name)
			case store.Cause:
				f.SetString(string(store.CauseSilent))
			case bool:
				f.SetBool(true)
			case int, int64:
				f.SetInt(-1 << 40)
			case *int:
				f.Set(reflect.ValueOf(new(int)))
			case []int:
				f.Set(reflect.ValueOf([]int{0, 255, -16384}))
			default:
				t.Fatalf("%s is of a type that this test does not know", fields.Field(k).Name)
			}
		}
		check(fields.Field(k).Name, one)
	}
	check("everything", all)
	check("a plain text", store.Detail{Reason: "the initiator logged out"})
}

func BenchmarkDetailJSON(b *testing.B) {
	d := store.Detail{Initiator: "iqn.2026-11.test:alice", Target: "iqn.2026-11.test:t", ISID: "800000000001", Session: "0123abcd", Auth: "none", Mapped: []int{0, 1}}
	buf := make([]byte, 0, 1024)
	for b.Loop() {
		buf = d.AppendJSON(buf[:0])
	}
}
