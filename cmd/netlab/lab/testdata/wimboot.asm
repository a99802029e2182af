; A stand-in for wimboot: as that is, a kernel by Linux' boot protocol and a program
; for UEFI in one file. It lists on COM1 what it is handed, and stops. On BIOS the
; archive in front of each file (cpio, newc) is how iPXE tells wimboot the names; on
; UEFI the files lie in the file system of the device that the program came from.
; Each line has a file's name, its size in hexadecimal, and the sum of its bytes.
;
; Assembled with: nasm -f bin -o wimboot wimboot.asm

bits 16
org 0

COM1    equ 0x3f8
SETUP   equ 2560                        ; what a kernel has in front of itself
CODE    equ 1536                        ; the kernel, which is UEFI's program
FINISH  equ SETUP + CODE

        db 'MZ'                         ; for UEFI: PE32+, one section
        times 0x3c - ($ - $$) db 0
        dd pe
pe:     db 'PE', 0, 0
        dw 0x8664                       ; x86-64
        dw 1
        dd 0, 0, 0
        dw sections - optional
        dw 0x0022                       ; executable, above 2 GiB too
optional:
        dw 0x020b
        dw 0
        dd FINISH - 0x200               ; code
        dd 0, 0
        dd efi                          ; entry
        dd 0x200
        dq 0
        dd 0x200, 0x200                 ; alignment in memory, in the file
        dd 0, 0, 0, 0
        dd FINISH                       ; in memory
        dd 0x200                        ; headers
        dd 0
        dw 10                           ; an application
        dw 0
        dq 0x10000, 0x10000, 0, 0
        dd 0, 0
sections:
        db '.text', 0, 0, 0
        dd FINISH - 0x200, 0x200, FINISH - 0x200, 0x200
        dd 0, 0, 0
        dd 0xe0000020

        times 0x1f1 - ($ - $$) db 0
        db 4                            ; sectors of setup behind the first
        dw 0
        dd CODE / 16        ; paragraphs of the kernel
        times 0x1fe - ($ - $$) db 0
        dw 0xaa55
        jmp     short start             ; 0x200: where the loader jumps to
        db 'HdrS'
        dw 0x0206                       ; version of the protocol
        dd 0
        dw 0x1000
        dw version - 0x200
        db 0
        db 1                            ; loaded high
        dw 0
        dd 0x100000
initrd: dd 0                            ; 0x218: address, and size
length: dd 0
        dd 0
        dw 0
        dw 0
        dd 0
        dd 0x37ffffff                   ; the highest address of what is handed
        dd 0
        dw 0
        dw 0
        dd 255
version db 'v0', 0

start:  cld
        cli
        xor     eax, eax
        mov     ax, ds
        shl     eax, 4
        add     eax, gdt
        mov     [gdtr + 2], eax
        lgdt    [gdtr]
        mov     eax, cr0                ; fs reaches all of the memory from here on
        or      al, 1
        mov     cr0, eax
        mov     bx, 8
        mov     fs, bx
        and     al, 0xfe
        mov     cr0, eax
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
        mov     si, sayup
        call    print
        mov     esi, [initrd]
        mov     edi, [length]
        add     edi, esi
next:   cmp     esi, edi
        jae     done
        cmp     dword [fs:esi], '0707'  ; newc: 070701
        je      file
        inc     esi                     ; what lies between two archives
        jmp     next
file:   lea     ebx, [esi + 94]         ; size of the name
        call    hex
        mov     ebp, eax
        push    esi
        add     esi, 110
.name:  mov     al, [fs:esi]
        test    al, al
        jz      .named
        call    putc
        inc     esi
        jmp     .name
.named: pop     esi
        mov     al, ' '
        call    putc
        mov     ecx, 54
.size:  mov     al, [fs:esi + ecx]
        call    putc
        inc     ecx
        cmp     ecx, 62
        jb      .size
        lea     ebx, [esi + 54]
        call    hex
        mov     ecx, eax                ; size of the file
        lea     esi, [esi + ebp + 110 + 3]
        and     esi, -4
        xor     ebp, ebp
        mov     ebx, ecx
.sum:   test    ebx, ebx
        jz      .summed
        movzx   eax, byte [fs:esi]
        add     ebp, eax
        inc     esi
        dec     ebx
        jmp     .sum
.summed:
        mov     al, ' '
        call    putc
        mov     cx, 8
.digit: rol     ebp, 4
        mov     ax, bp
        and     al, 15
        call    nibble
        loop    .digit
        push    esi
        mov     si, newline
        call    print
        pop     esi
        add     esi, 3
        and     esi, -4
        jmp     next
done:   mov     si, saydone
        call    print
halt:   hlt
        jmp     halt

hex:    mov     cx, 8                   ; eight digits at fs:ebx
        xor     eax, eax
.digit: movzx   edx, byte [fs:ebx]
        sub     dl, '0'
        cmp     dl, 9
        jbe     .ten
        and     dl, 0xdf
        sub     dl, 7
.ten:   shl     eax, 4
        add     eax, edx
        inc     ebx
        loop    .digit
        ret

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
print:  lodsb
        test    al, al
        jz      .end
        call    putc
        jmp     print
.end:   ret

sayup   db 13, 10, 'STAND-IN', 13, 10, 0
saydone db 'STAND-IN DONE', 13, 10, 0
newline db 13, 10, 0

align 8, db 0
gdt:    dq 0
        dw 0xffff, 0, 0x9200, 0x00cf    ; all of the memory, as data
gdtr:   dw 15
        dd 0

        times SETUP - ($ - $$) db 0

bits 64
banner  db 10, 10, 'wimboot v0 -- Windows Imaging Format bootloader (a stand-in)', 10, 10, 0

; How a program for UEFI is called: UEFI 2.10, sections 2.3.4 and 4.3. Here rcx is
; its handle and rdx the system table; offsets are those of the tables there.
ROOM    equ 0x2000
FIFTH   equ 0x20
GOT     equ 0x28                        ; where calls put an address
SIZE    equ 0x30
INFO    equ 0x100                       ; a file's description
MOST    equ 88 + 2 * 32                 ; as much of it as wimboot has room for
NAME    equ INFO + 80
DATA    equ 0x400

efi:    cld
        and     rsp, -16
        sub     rsp, ROOM
        mov     rbx, [rdx + 96]         ; boot services
        lea     rdx, [rel image]
        lea     r8, [rsp + GOT]
        call    [rbx + 152]             ; HandleProtocol
        mov     r12, rax
        lea     rsi, [rel saynoimage]
        test    rax, rax
        jnz     .failed
        mov     rcx, [rsp + GOT]
        mov     rcx, [rcx + 24]         ; the device that it came from
        lea     rdx, [rel files]
        lea     r8, [rsp + GOT]
        call    [rbx + 152]
        lea     rsi, [rel saynofiles]
        test    rax, rax
        jnz     .failed
        mov     rcx, [rsp + GOT]
        lea     rdx, [rsp + GOT]
        call    [rcx + 8]               ; OpenVolume
        test    rax, rax
        jnz     .failed
        mov     rdi, [rsp + GOT]        ; the root folder
        lea     rsi, [rel sayup]
        call    .print
.next:  mov     qword [rsp + SIZE], MOST
        mov     rcx, rdi
        lea     rdx, [rsp + SIZE]
        lea     r8, [rsp + INFO]
        call    [rdi + 32]              ; Read
        lea     rsi, [rel saynonext]
        test    rax, rax
        jnz     .failed
        cmp     qword [rsp + SIZE], 0
        je      .done
        test    byte [rsp + INFO + 72], 0x10 ; a folder
        jnz     .next
        lea     rsi, [rsp + NAME]
.name:  lodsw
        test    ax, ax
        jz      .named
        call    .putc
        jmp     .name
.named: mov     rcx, rdi
        lea     rdx, [rsp + GOT]
        lea     r8, [rsp + NAME]
        mov     r9d, 1                  ; to read
        mov     qword [rsp + FIFTH], 0
        call    [rdi + 8]               ; Open
        lea     rsi, [rel saynofile]
        test    rax, rax
        jnz     .failed
        mov     r12, [rsp + GOT]
        xor     r13d, r13d              ; size
        xor     r14d, r14d              ; sum
.read:  mov     qword [rsp + SIZE], ROOM - DATA
        mov     rcx, r12
        lea     rdx, [rsp + SIZE]
        lea     r8, [rsp + DATA]
        call    [r12 + 32]
        lea     rsi, [rel saynofile]
        test    rax, rax
        jnz     .failed
        mov     rcx, [rsp + SIZE]
        jrcxz   .ended
        add     r13, rcx
        lea     rsi, [rsp + DATA]
.sum:   xor     eax, eax
        lodsb
        add     r14d, eax
        dec     rcx
        jnz     .sum
        jmp     .read
.ended: mov     r15d, r13d
        call    .hex
        mov     r15d, r14d
        call    .hex
        lea     rsi, [rel newline]
        call    .print
        jmp     .next
.done:  lea     rsi, [rel saydone]
.failed:
        call    .print
.halt:  hlt
        jmp     .halt

.hex:   mov     al, ' '                 ; a space and eight digits of r15d
        call    .putc
        mov     ecx, 8
.digit: rol     r15d, 4
        mov     al, r15b
        and     al, 15
        add     al, '0'
        cmp     al, '9'
        jbe     .ten
        add     al, 'a' - '9' - 1
.ten:   call    .putc
        loop    .digit
        ret
.putc:  mov     r8d, eax
        mov     dx, COM1 + 5
.busy:  in      al, dx
        test    al, 0x20
        jz      .busy
        mov     dx, COM1
        mov     eax, r8d
        out     dx, al
        ret
.print: lodsb
        test    al, al
        jz      .end
        call    .putc
        jmp     .print
.end:   ret

image   dd 0x5b1b31a1                   ; EFI_LOADED_IMAGE_PROTOCOL
        dw 0x9562, 0x11d2
        db 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
files   dd 0x964e5b22                   ; EFI_SIMPLE_FILE_SYSTEM_PROTOCOL
        dw 0x6459, 0x11d2
        db 0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
saynoimage db 13, 10, 'STAND-IN: where did it come from?', 13, 10, 0
saynofiles db 13, 10, 'STAND-IN: its device has no file system', 13, 10, 0
saynonext db 13, 10, 'STAND-IN: wimboot has no room for a name that long', 13, 10, 0
saynofile db 13, 10, 'STAND-IN: the file cannot be read', 13, 10, 0

        times FINISH - ($ - $$) db 0
