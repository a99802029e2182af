package probe

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestHealthAnswersWhateverThePartsDo(t *testing.T) {
	w := get(http.HandlerFunc(Health), HealthPath)
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "ok\n", w.Body.String())
}

func TestReadyNamesThePartThatIsNot(t *testing.T) {
	now := time.Unix(1000, 0)
	parts := []Part{{"DHCP", true}, {"iSCSI", true}}
	looks := 0
	h := NewReady(func(context.Context) []Part { looks++; return append([]Part(nil), parts...) }, func() time.Time { return now })

	w := get(h, ReadyPath)
	assert.Equal(t, http.StatusOK, w.Code)
	assert.JSONEq(t, `{"ready":true,"parts":[{"name":"DHCP","ready":true},{"name":"iSCSI","ready":true}]}`, w.Body.String())
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))

	parts[1].Ready = false
	assert.Equal(t, http.StatusOK, get(h, ReadyPath).Code, "an answer is good for a second")
	assert.Equal(t, 1, looks)
	now = now.Add(fresh)
	w = get(h, ReadyPath)
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.JSONEq(t, `{"ready":false,"parts":[{"name":"DHCP","ready":true},{"name":"iSCSI","ready":false}]}`, w.Body.String())

	parts[1].Ready = true
	now = now.Add(-time.Hour) // the clock was set back
	assert.Equal(t, http.StatusOK, get(h, ReadyPath).Code)
}

func TestALookThatHangsEnds(t *testing.T) {
	h := NewReady(func(ctx context.Context) []Part {
		<-ctx.Done()
		return []Part{{"inventory", false}}
	}, time.Now)
	assert.Equal(t, http.StatusServiceUnavailable, get(h, ReadyPath).Code)
}
