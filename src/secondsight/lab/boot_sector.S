# First sector: BIOS loads it at 0x7c00 and enters it in real mode.
.equ PARAMS, 0x50000
.code16
.globl _start
_start:
    mov $(PARAMS >> 4), %ax
    mov %ax, %ds
    mov %ax, %es
    mov $0x2d0, %di                 # boot_params.e820_table
    xor %bp, %bp
    xor %ebx, %ebx
1:  mov $0xe820, %eax
    mov $0x534d4150, %edx           # "SMAP"
    mov $20, %ecx
    int $0x15
    jc 2f
    add $20, %di
    inc %bp
    test %ebx, %ebx
    jnz 1b
2:  mov %bp, %ax
    mov %al, 0x1e8                  # boot_params.e820_entries
    cli
    in $0x92, %al                   # open the A20 gate
    or $2, %al
    out %al, $0x92
    lgdtl 0x8020
    mov %cr4, %eax
    or $0x20, %al                   # PAE
    mov %eax, %cr4
    mov $(PARAMS + 0x2000), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx           # EFER.LME
    rdmsr
    or $1, %ah
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax            # PG and PE
    mov %eax, %cr0
    ljmpl $0x10, $(0x7c00 + long - _start)
.code64
long:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x6000000, %edi            # touch scratch blocks until the last pad has been used up
3:  mov (%rdi), %rax
    add $0x20000, %edi
    cmp PARAMS + 0x8030, %rax
    jne 3b
    mov $0x1000000, %edi            # then the kernel's blocks
    mov PARAMS + 0x8038, %ecx
    call touch
    mov $0x8000000, %edi            # then the initramfs's
    mov PARAMS + 0x803c, %ecx
    call touch
    mov $PARAMS, %esi
    mov PARAMS + 0x8028, %rax
    jmp *%rax
touch:
    mov (%rdi), %al
    add $0x20000, %edi
    loop touch
    ret
.org 510
.word 0xaa55
