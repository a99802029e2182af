package pdu

import "fmt"

// TaskFunction is a task management function (RFC 7143 §11.5.1).
type TaskFunction uint8

// The functions.
const (
	FuncAbortTask        TaskFunction = 1
	FuncAbortTaskSet     TaskFunction = 2
	FuncClearACA         TaskFunction = 3
	FuncClearTaskSet     TaskFunction = 4
	FuncLogicalUnitReset TaskFunction = 5
	FuncTargetWarmReset  TaskFunction = 6
	FuncTargetColdReset  TaskFunction = 7
	FuncTaskReassign     TaskFunction = 8
)

func (f TaskFunction) String() string {
	names := [...]string{1: "ABORT TASK", "ABORT TASK SET", "CLEAR ACA", "CLEAR TASK SET", "LOGICAL UNIT RESET", "TARGET WARM RESET", "TARGET COLD RESET", "TASK REASSIGN"}
	if int(f) < len(names) && names[f] != "" {
		return names[f]
	}
	return fmt.Sprintf("function %d", uint8(f))
}

// TaskResult is the answer to a task management function (RFC 7143 §11.6.1).
type TaskResult uint8

// The results.
const (
	TaskComplete             TaskResult = 0
	TaskDoesNotExist         TaskResult = 1
	TaskLUNDoesNotExist      TaskResult = 2
	TaskStillAllegiant       TaskResult = 3
	TaskReassignNotSupported TaskResult = 4
	TaskNotSupported         TaskResult = 5
	TaskNotAuthorized        TaskResult = 6
	TaskRejected             TaskResult = 255
)

// TaskRequest is a Task Management Function Request PDU (RFC 7143 §11.5):
//
//	byte 1: 1, Function (bits 6..0) · 8 LUN · 16 InitiatorTaskTag
//	20 ReferencedTaskTag · 24 CmdSN · 28 ExpStatSN · 32 RefCmdSN · 36 ExpDataSN
type TaskRequest struct {
	Immediate         bool
	Function          TaskFunction
	LUN               LUN
	InitiatorTaskTag  TaskTag
	ReferencedTaskTag TaskTag
	CmdSN             Serial
	ExpStatSN         Serial
	RefCmdSN          Serial
	ExpDataSN         Serial
}

const (
	offRefTag       = 20
	offRefCmdSN     = 32
	offTaskDataSN   = 36
	lowSevenBits    = 0x7f
	offTaskResponse = 2
)

// Opcode returns OpTaskRequest.
func (*TaskRequest) Opcode() Opcode { return OpTaskRequest }

// Decode reads the header.
func (p *TaskRequest) Decode(h *Header) error {
	if err := h.expect(OpTaskRequest); err != nil {
		return err
	}
	*p = TaskRequest{
		Immediate:         h.Immediate(),
		Function:          TaskFunction(h[offFlags] & lowSevenBits),
		LUN:               h.lun(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		ReferencedTaskTag: TaskTag(h.u32(offRefTag)),
		CmdSN:             Serial(h.u32(offCmdSN)),
		ExpStatSN:         Serial(h.u32(offExpStatSN)),
		RefCmdSN:          Serial(h.u32(offRefCmdSN)),
		ExpDataSN:         Serial(h.u32(offTaskDataSN)),
	}
	return nil
}

// Encode fills the header.
func (p *TaskRequest) Encode(h *Header) {
	h.begin(OpTaskRequest, p.Immediate, true)
	h[offFlags] |= byte(p.Function) & lowSevenBits
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offRefTag, uint32(p.ReferencedTaskTag))
	h.put32(offCmdSN, uint32(p.CmdSN))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
	h.put32(offRefCmdSN, uint32(p.RefCmdSN))
	h.put32(offTaskDataSN, uint32(p.ExpDataSN))
}

// TaskResponse is a Task Management Function Response PDU (RFC 7143 §11.6):
//
//	2 Response · 16 InitiatorTaskTag · 24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN
type TaskResponse struct {
	Response         TaskResult
	InitiatorTaskTag TaskTag
	SN               SN
}

// Opcode returns OpTaskResponse.
func (*TaskResponse) Opcode() Opcode { return OpTaskResponse }

// Decode reads the header.
func (p *TaskResponse) Decode(h *Header) error {
	if err := h.expect(OpTaskResponse); err != nil {
		return err
	}
	*p = TaskResponse{Response: TaskResult(h[offTaskResponse]), InitiatorTaskTag: h.InitiatorTaskTag(), SN: h.sn()}
	return nil
}

// Encode fills the header.
func (p *TaskResponse) Encode(h *Header) {
	h.begin(OpTaskResponse, false, true)
	h[offTaskResponse] = byte(p.Response)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.putSN(p.SN)
}
