/* bpf_count.c - bpf_count CGROUP_DIRECTORY: count what BPF programs see that are attached to a cgroup
 *
 * Says "attached", and for each line of its input what has been counted, as JSON. The programs go when it ends.
 * Each adds one to a word of a map. Source: bpf(2). */
#include <stddef.h>

#include "bpf.h"

#define IP_PROTOCOL 9 /* offsets in an IPv4 packet without options */
#define IP_TCP_FLAGS (20 + 13)
#define TCP_SYN 0x02
#define TCP_SYN_ACK 0x12
#define COUNTING 9 /* instructions of count(), load_byte(), count_if_flags() */
#define LOADING 7
#define COUNTING_FLAGS (LOADING + 2 + COUNTING)

enum count {
    CREATED_STREAM,
    CREATED_DATAGRAM,
    BOUND,
    CONNECTED_STREAM,
    CONNECTED_DATAGRAM,
    SENT_TO,
    ACTIVE,
    PASSIVE,
    SYN_OUT,
    SYN_ACK_OUT,
    UDP_OUT,
    COUNTS
};

static const char *const names[] = {
    [CREATED_STREAM] = "stream sockets",
    [CREATED_DATAGRAM] = "datagram sockets",
    [BOUND] = "bind()",
    [CONNECTED_STREAM] = "connect() of streams",
    [CONNECTED_DATAGRAM] = "connect() of datagrams",
    [SENT_TO] = "sendto()",
    [ACTIVE] = "made connections",
    [PASSIVE] = "taken connections",
    [SYN_OUT] = "SYN sent",
    [SYN_ACK_OUT] = "SYN+ACK sent",
    [UDP_OUT] = "datagrams sent",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == COUNTS, "each count has a name");

static int map_fd;

/* COUNTING instructions: one more in this word. */
static void count(enum count word)
{
    add(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, (int)word);
    add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0);
    add(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4);
    add(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd);
    add(0, 0, 0, 0, 0); /* its second half */
    add(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem);
    add(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0);
    add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1);
    add(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD);
}

/* The context's 32-bit word at `offset` has this value: count it. */
static void count_if_field(int offset, int value, enum count word)
{
    add(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_0, BPF_REG_6, (short)offset, 0);
    add(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, COUNTING, value);
    count(word);
}

/* LOADING instructions: R0 is the byte of the packet, of which the IP header comes first. */
static void load_byte(int offset)
{
    add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_1, BPF_REG_6, 0, 0);
    add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, offset);
    add(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_10, 0, 0);
    add(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_3, 0, 0, -8);
    add(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_4, 0, 0, 1);
    add(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_load_bytes);
    add(BPF_LDX | BPF_MEM | BPF_B, BPF_REG_0, BPF_REG_10, -8, 0);
}

/* COUNTING_FLAGS instructions: a TCP packet has these of its flags SYN and ACK: count it. */
static void count_if_flags(int flags, enum count word)
{
    load_byte(IP_TCP_FLAGS);
    add(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_0, 0, 0, TCP_SYN_ACK);
    add(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, COUNTING, flags);
    count(word);
}

static void attach_all(int cgroup_fd)
{
    begin();
    count_if_field(offsetof(struct bpf_sock, type), SOCK_STREAM, CREATED_STREAM);
    count_if_field(offsetof(struct bpf_sock, type), SOCK_DGRAM, CREATED_DATAGRAM);
    attach(cgroup_fd, BPF_PROG_TYPE_CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE);
    begin();
    count(BOUND);
    attach(cgroup_fd, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_BIND);
    begin();
    count_if_field(offsetof(struct bpf_sock_addr, type), SOCK_STREAM, CONNECTED_STREAM);
    count_if_field(offsetof(struct bpf_sock_addr, type), SOCK_DGRAM, CONNECTED_DATAGRAM);
    attach(cgroup_fd, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT);
    begin();
    count(SENT_TO);
    attach(cgroup_fd, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_UDP4_SENDMSG);
    begin();
    count_if_field(offsetof(struct bpf_sock_ops, op), BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, ACTIVE);
    count_if_field(offsetof(struct bpf_sock_ops, op), BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, PASSIVE);
    attach(cgroup_fd, BPF_PROG_TYPE_SOCK_OPS, BPF_CGROUP_SOCK_OPS);
    begin();
    load_byte(IP_PROTOCOL);
    add(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, COUNTING + 1, IPPROTO_UDP);
    count(UDP_OUT);
    add(BPF_JMP | BPF_JA, 0, 0, 2 * COUNTING_FLAGS, 0); /* its flags are not TCP's */
    count_if_flags(TCP_SYN, SYN_OUT);
    count_if_flags(TCP_SYN_ACK, SYN_ACK_OUT);
    attach(cgroup_fd, BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS);
}

static void say_counts(void)
{
    for (__u32 i = 0; i < COUNTS; i++) {
        __u64 value = 0;
        union bpf_attr look = {.map_fd = (__u32)map_fd,
                               .key = (__u64)(uintptr_t)&i,
                               .value = (__u64)(uintptr_t)&value};

        sure("BPF_MAP_LOOKUP_ELEM", (int)bpf(BPF_MAP_LOOKUP_ELEM, &look));
        printf("%s\"%s\": %llu", i == 0 ? "{" : ", ", names[i], (unsigned long long)value);
    }
    puts("}");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY,
                          .key_size = sizeof(__u32),
                          .value_size = sizeof(__u64),
                          .max_entries = COUNTS};

    if (argc != 2)
        return SET_UP_FAILED;
    map_fd = sure("BPF_MAP_CREATE", (int)bpf(BPF_MAP_CREATE, &map));
    attach_all(sure(argv[1], open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
    puts("attached");
    fflush(stdout);
    while (wait_line())
        say_counts();
    return 0;
}
