package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"lunboot/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hookSecret = "a secret of the hook"

// receiver answers as its test wants and keeps what it got.
type receiver struct {
	mu     sync.Mutex
	answer func(try int) int // status; 0: no answer in time
	got    []*http.Request
	bodies [][]byte
}

// RoundTrip is the receiver without a network, so that a test's clock decides
// how long everything takes.
func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.got, r.bodies = append(r.got, req), append(r.bodies, body)
	status := 200
	if r.answer != nil {
		status = r.answer(len(r.got))
	}
	r.mu.Unlock()
	if status == 0 {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader("thanks")), Request: req}, nil
}

func (r *receiver) tries() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func attempt(id store.AttemptID, o store.Outcome) store.Attempt {
	return store.Attempt{
		ID: id, Machine: 7, Name: "lab-12", Outcome: o, Stage: store.StageRead, Key: "the report's key",
		Diagnoses: []store.Diagnosis{{Code: "LB-LUN-01", Title: "lab-12 asked for LUN 0"}},
	}
}

// serve runs a server inside a bubble.
func serve(t *testing.T, r *receiver, hook *Hook) (s *Server, log *strings.Builder, stop func()) {
	t.Helper()
	log = &strings.Builder{}
	s = New(Config{
		Hook:    func(context.Context) (Hook, error) { return *hook, nil },
		Page:    func(store.Attempt) string { return "http://10.77.0.1:8080/machines/7" },
		Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now,
	})
	s.client.Transport = r
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	return s, log, func() { cancel(); assert.NoError(t, <-done) }
}

func both() *Hook {
	return &Hook{URL: "https://hooks.example.org/T0/hushhush", Secret: hookSecret, Outcomes: []store.Outcome{store.OutcomeFailed, store.OutcomeUp}}
}

func TestAReceiverIsToldOfAFailedBoot(t *testing.T) {
	type post struct {
		header http.Header
		body   []byte
	}
	posts := make(chan post, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- post{r.Header, body}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	hook := both()
	hook.URL = srv.URL
	s, log, stop := serve(t, nil, hook)
	s.client.Transport = http.DefaultTransport.(*http.Transport).Clone()
	defer stop()
	s.Ended(attempt(3, store.OutcomeFailed))
	p := <-posts
	require.Eventually(t, func() bool { return s.State() == State{Delivered: 1} }, 5*time.Second, time.Millisecond)
	assert.Equal(t, "3-failed", p.header.Get("X-Lunboot-Delivery"))
	assert.Equal(t, "failed", p.header.Get("X-Lunboot-Event"))
	assert.Equal(t, Sign(hookSecret, p.body), p.header.Get("X-Lunboot-Signature"))
	var n struct {
		ID, Event, Page string
		MachineName     string `json:"machine_name"`
		Attempt         struct {
			ID        int
			Outcome   string
			Diagnoses []store.Diagnosis
		}
	}
	require.NoError(t, json.Unmarshal(p.body, &n))
	assert.Equal(t, "3-failed", n.ID)
	assert.Equal(t, "lab-12", n.MachineName)
	assert.Equal(t, "http://10.77.0.1:8080/machines/7", n.Page)
	assert.Equal(t, 3, n.Attempt.ID)
	assert.Equal(t, "LB-LUN-01", n.Attempt.Diagnoses[0].Code)
	for _, secret := range []string{"the report's key", hookSecret} {
		assert.NotContains(t, string(p.body), secret)
		assert.NotContains(t, log.String(), secret)
	}
}

// RFC 4231 §4.3, test case 2.
func TestTheSignatureIsTheStandards(t *testing.T) {
	assert.Equal(t, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", Sign("Jefe", []byte("what do ya want for nothing?")))
}

func TestAReceiverThatIsAwayIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(try int) int { return []int{500, 0, 429, 200}[min(try, 4)-1] }}
		s, log, stop := serve(t, r, both())
		defer stop()
		began := time.Now()
		s.Ended(attempt(3, store.OutcomeFailed))
		s.Ended(attempt(4, store.OutcomeUp))
		synctest.Wait()
		assert.Equal(t, 2, s.State().Waiting)
		assert.Contains(t, s.State().Trouble, "POST to hooks.example.org: it answered")
		time.Sleep(time.Hour)
		assert.Equal(t, State{Delivered: 2}, s.State())
		require.Equal(t, 5, r.tries())
		for i, id := range []string{"3-failed", "3-failed", "3-failed", "3-failed", "4-up"} {
			assert.Equal(t, id, r.got[i].Header.Get("X-Lunboot-Delivery"))
		}
		assert.Equal(t, r.bodies[0], r.bodies[3], "the same one, byte for byte")
		assert.Less(t, time.Since(began), time.Hour+time.Second)
		assert.NotContains(t, log.String(), "hushhush")
	})
}

func TestAReceiverThatRefusesIsNotAskedAgain(t *testing.T) {
	for _, status := range []int{400, 404, 410, 302} {
		synctest.Test(t, func(t *testing.T) {
			r := &receiver{answer: func(int) int { return status }}
			s, log, stop := serve(t, r, both())
			defer stop()
			s.Ended(attempt(3, store.OutcomeFailed))
			time.Sleep(time.Hour)
			assert.Equal(t, 1, r.tries(), "%d", status)
			assert.Equal(t, int64(1), s.State().Lost)
			assert.Contains(t, log.String(), "was not told of the end of a boot, and will not be")
		})
	}
}

func TestAReceiverThatNeverAnswersIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(int) int { return 0 }}
		s, _, stop := serve(t, r, both())
		defer stop()
		s.Ended(attempt(3, store.OutcomeFailed))
		time.Sleep(keepTrying - time.Minute)
		assert.Equal(t, 1, s.State().Waiting)
		time.Sleep(2 * time.Minute)
		assert.Equal(t, 0, s.State().Waiting)
		assert.Equal(t, int64(1), s.State().Lost)
		assert.Less(t, r.tries(), 30, "with growing pauses")
	})
}

func TestTheQueueIsBoundedAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{answer: func(int) int { return 0 }}
		s, log, stop := serve(t, r, both())
		began := time.Now()
		for id := range store.AttemptID(maxWaiting + 10) {
			s.Ended(attempt(id, store.OutcomeFailed))
		}
		assert.Equal(t, began, time.Now())
		assert.Equal(t, maxWaiting, s.State().Waiting)
		assert.Equal(t, int64(10), s.State().Lost)
		stop()
		assert.Contains(t, log.String(), "1009-failed")
		assert.Contains(t, log.String(), "will not be")
	})
}

func TestAnEndThatComesWithTheAppliancesOwnIsStillTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		r := &receiver{answer: func(int) int { return map[bool]int{false: 500, true: 200}[up] }}
		s, log, stop := serve(t, r, both())
		s.Ended(attempt(3, store.OutcomeFailed))
		s.Ended(attempt(4, store.OutcomeUp))
		synctest.Wait()
		up = true // while the pause after the first try runs
		stop()
		assert.Equal(t, 3, r.tries())
		assert.Equal(t, 0, s.State().Waiting)
		assert.NotContains(t, log.String(), "will not be")
	})
}

func TestOnlyWhatWasAskedForIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &Hook{URL: "http://a", Outcomes: []store.Outcome{store.OutcomeFailed}}
		r := &receiver{}
		s, _, stop := serve(t, r, hook)
		defer stop()
		s.Ended(attempt(1, store.OutcomeUp))
		s.Ended(attempt(2, store.OutcomeUpUnconfirmed))
		s.Ended(attempt(3, store.OutcomeFailed))
		time.Sleep(time.Minute)
		require.Equal(t, 1, r.tries())
		assert.Empty(t, r.got[0].Header.Get("X-Lunboot-Signature"))
		hook.URL = ""
		s.Ended(attempt(4, store.OutcomeFailed))
		time.Sleep(time.Minute)
		assert.Equal(t, 1, r.tries())
		assert.Equal(t, State{Delivered: 1}, s.State())
	})
}

func TestAnErrorDoesNotShowTheURL(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	hook := both()
	hook.URL = "http://" + l.Addr().String() + "/T0/hushhush"
	s, _, stop := serve(t, nil, hook)
	defer stop()
	s.client.Transport = http.DefaultTransport.(*http.Transport).Clone()
	err = s.try(t.Context(), Notification{Event: store.OutcomeUp})
	assert.ErrorContains(t, err, "connection refused")
	assert.NotContains(t, err.Error(), "hushhush")
	assert.False(t, errors.As(err, new(*refused)))
}
