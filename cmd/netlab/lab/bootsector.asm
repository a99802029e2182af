; A boot sector that proves a disk: it reads what the host hid on it, writes an
; answer, reads that back and says so on COM1. BIOS interrupts only (INT 13h
; extensions, AH=42h/43h), so that it runs on whatever iPXE hooked.
;
; LBA 0  this sector
; LBA 1  the host's: 32 hexadecimal digits, then one letter: P = power off
;        afterwards, H = hold, reading on once a second
; LBA 2  the guest's answer: "guest wrote " and the 32 digits, zeros; before it
;        writes, it says what is there: found=g, or found=- of an empty block
;
; Assembled with: nasm -f bin -o bootsector.bin bootsector.asm

bits 16
org 0x7c00

COM1    equ 0x3f8
HOST    equ 0x8000
ANSWER  equ 0x8200
BACK    equ 0x8400

start:  jmp     0:main
main:   cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, start
        sti
        cld
        mov     [drive], dl
        mov     dx, COM1 + 3            ; 115200 8n1
        mov     al, 0x80
        out     dx, al
        mov     dx, COM1
        mov     al, 1
        out     dx, al
        inc     dx
        mov     al, 0
        out     dx, al
        mov     dx, COM1 + 3
        mov     al, 3
        out     dx, al

        mov     ah, 0x42                ; read what the host hid
        mov     bx, HOST
        mov     cl, 1
        call    disk
        mov     ah, 0x42                ; and what a boot before has left
        mov     bx, BACK
        mov     cl, 2
        call    disk
        mov     si, sayup
        call    print
        mov     al, [BACK]
        test    al, al
        jnz     found
        mov     al, '-'
found:  call    putc
        mov     si, saynonce
        call    print
        call    digits

        mov     di, ANSWER              ; the answer
        xor     ax, ax
        mov     cx, 256
        push    di
        rep     stosw
        pop     di
        mov     si, wrote
        mov     cx, 12
        rep     movsb
        mov     si, HOST
        mov     cx, 32
        rep     movsb
        mov     ah, 0x43
        mov     bx, ANSWER
        mov     cl, 2
        call    disk
        mov     ah, 0x42
        mov     bx, BACK
        mov     cl, 2
        call    disk
        mov     si, ANSWER
        mov     di, BACK
        mov     cx, 256
        repe    cmpsw
        jne     differs
        mov     si, saywrote
        call    print
        call    digits
        cmp     byte [HOST + 32], 'H'
        je      hold

        mov     dx, 0x604               ; ACPI S5 through QEMU's power management port
        mov     ax, 0x2000
        out     dx, ax
halt:   hlt
        jmp     halt

hold:   mov     ah, 0x86                ; wait 1,000,000 microseconds
        mov     cx, 0x000f
        mov     dx, 0x4240
        int     0x15
        mov     ah, 0x42
        mov     bx, HOST
        mov     cl, 1
        call    disk
        mov     si, saytick
        call    print
        jmp     hold

disk:   mov     [buffer], bx            ; AH = function, BX = buffer, CL = LBA
        mov     [lba], cl
        mov     al, 0
        mov     dl, [drive]
        mov     si, packet
        int     0x13
        jc      failed
        ret

failed: push    ax
        mov     si, sayfail
        call    print
        pop     ax
        push    ax
        mov     al, ah
        shr     al, 4
        call    nibble
        pop     ax
        mov     al, ah
        and     al, 15
        call    nibble
        jmp     ended
differs:
        mov     si, saydiff
        call    print
ended:  mov     si, newline
        call    print
        jmp     halt

nibble: add     al, '0'
        cmp     al, '9'
        jbe     putc
        add     al, 'a' - '9' - 1
putc:   push    dx
        push    ax
        mov     dx, COM1 + 5
.busy:  in      al, dx
        test    al, 0x20
        jz      .busy
        pop     ax
        mov     dx, COM1
        out     dx, al
        pop     dx
        ret

digits: mov     si, HOST
        mov     cx, 32
.next:  lodsb
        call    putc
        loop    .next
        mov     si, newline
print:  lodsb
        test    al, al
        jz      .end
        call    putc
        jmp     print
.end:   ret

sayup    db 13, 10, "LUNBOOT-UP found=", 0
saynonce db " nonce=", 0
saywrote db "LUNBOOT-WROTE nonce=", 0
sayfail  db 13, 10, "LUNBOOT-FAIL int13 status ", 0
saydiff  db 13, 10, "LUNBOOT-FAIL read back something else", 0
saytick  db "TICK", 13, 10, 0
wrote    db "guest wrote "
newline  db 13, 10, 0

align 4, db 0
packet: db 16, 0                        ; disk address packet
        dw 1                            ; one block
buffer: dw 0, 0
lba:    dq 0
drive:  db 0

times 510 - ($ - $$) db 0
        dw 0xaa55
