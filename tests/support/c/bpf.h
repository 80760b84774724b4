/* bpf.h - BPF programs that are written by hand, one after the other, and attached to a cgroup
 *
 * begin(), then add() for each instruction, then attach(), which ends the program. No compiler for BPF
 * is needed. What is attached goes with the process, which holds the link.
 * Limits: ROOM instructions a program.
 * Source: bpf(2), include/uapi/linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst. */
#ifndef BPF_H
#define BPF_H

#include <linux/bpf.h>
#include <sys/syscall.h>

#include "say.h"

#define ROOM 64

static struct program {
    struct bpf_insn code[ROOM];
    unsigned n;
} program;

static inline long bpf(int command, union bpf_attr *attr)
{
    return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static inline void add(int code, int to, int from, int offset, int value)
{
    if (program.n == ROOM)
        _exit(SET_UP_FAILED);
    program.code[program.n++] = (struct bpf_insn){.code = (__u8)code,
                                                  .dst_reg = (__u8)to & 0xf,
                                                  .src_reg = (__u8)from & 0xf,
                                                  .off = (__s16)offset,
                                                  .imm = value};
}

/* R6 is the context from here on; what follows may use all registers but that. */
static inline void begin(void)
{
    program.n = 0;
    add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0);
}

/* The program lets everything be done; then it is attached. */
static inline void attach(int cgroup_fd, enum bpf_prog_type type, enum bpf_attach_type where)
{
    static char log[1 << 16];
    union bpf_attr load = {.prog_type = type,
                           .expected_attach_type = where,
                           .insns = (__u64)(uintptr_t)program.code,
                           .license = (__u64)(uintptr_t)"GPL",
                           .log_buf = (__u64)(uintptr_t)log,
                           .log_size = sizeof(log),
                           .log_level = 1};
    union bpf_attr link = {.link_create = {.target_fd = (__u32)cgroup_fd, .attach_type = where}};
    int program_fd;

    add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 1);
    add(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    load.insn_cnt = program.n;
    program_fd = (int)bpf(BPF_PROG_LOAD, &load);
    if (program_fd < 0)
        fputs(log, stderr);
    link.link_create.prog_fd = (__u32)sure("BPF_PROG_LOAD", program_fd);
    sure("BPF_LINK_CREATE", (int)bpf(BPF_LINK_CREATE, &link));
}

#endif
