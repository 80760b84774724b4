/* redirect_bpf.c - redirect_bpf CGROUP_DIRECTORY VIRTUAL ADDRESS: a BPF program redirects connections
 *
 * Theory of operation: connect() of processes in the cgroup to the address VIRTUAL (IPv4, any port) goes
 * to ADDRESS, same port: the program, which the kernel runs inside connect(), writes another destination.
 * Says "attached". The program goes when standard input ends, and this process with it.
 * Source: bpf(2), include/uapi/linux/bpf.h (struct bpf_sock_addr). */
#include <stddef.h>

#include "../../support/c/bpf.h"

static int as_word(const char *text)
{
    struct in_addr address;

    if (inet_pton(AF_INET, text, &address) != 1) {
        fprintf(stderr, "not an IPv4 address: %s\n", text);
        _exit(SET_UP_FAILED);
    }
    return (int)address.s_addr; /* in network order, as struct bpf_sock_addr has it */
}

int main(int argc, char **argv)
{
    const int destination = offsetof(struct bpf_sock_addr, user_ip4);

    if (argc != 4)
        return SET_UP_FAILED;
    begin();
    add(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_0, BPF_REG_6, destination, 0);
    add(BPF_JMP32 | BPF_JNE | BPF_K, BPF_REG_0, 0, 2, as_word(argv[2]));
    add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, as_word(argv[3]));
    add(BPF_STX | BPF_MEM | BPF_W, BPF_REG_6, BPF_REG_1, destination, 0);
    attach(sure(argv[1], open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
           BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT);
    puts("attached");
    fflush(stdout);
    while (wait_line())
        ;
    return 0;
}
