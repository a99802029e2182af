; A stand-in for wimboot: a kernel by Linux' boot protocol that lists on COM1 what
; it is handed, and stops. The archive in front of each file (cpio, newc) is how
; iPXE tells wimboot the names. Each line has a file's name, its size in
; hexadecimal as the archive has it, and the sum of its bytes.
;
; Assembled with: nasm -f bin -o wimboot wimboot.asm

bits 16
org 0

COM1    equ 0x3f8

times 0x1f1 db 0
        db 4                            ; sectors of setup behind the first
        dw 0
        dd 512 / 16                     ; paragraphs of the kernel
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
version db 'wimboot (a stand-in)', 0

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

times 2560 - ($ - $$) db 0
times 512 db 0                          ; what a kernel has behind its setup
