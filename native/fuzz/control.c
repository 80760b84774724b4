/* Any packets on the control channel, with any files: the agent survives them and keeps no fd.
 *
 * Theory of operation: the input is a run of packets, each
 *     u8 files     2 bits a file, the highest first: how many (0 to 3) in the top two bits, then kinds
 *     u16 length   of the packet, the low byte first
 *     bytes
 * which an agent in this process receives. The kinds of file are those of `kinds` below. In the middle
 * two calls wait for verdicts. What would act on the world is held back: nothing is spawned (the block is
 * read, and the spawn fails), no namespace is entered, files are made as ourselves, and every listening socket is
 * opened on 127.0.0.1, port 0. A finding is a crash, a sanitizer's report, or an fd that is open at the end and was
 * not at the beginning. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "../meshfd.h"

static int held_back_spawn(const struct mfd_spawn_request *request,
                           struct mfd_spawn_result *ret_result);
static int local_listening_open(struct mfd_listening_sockets *all, const struct mfd_netns *netns,
                                const struct mfd_listen *request, uint32_t *ret_index);
static int held_back_netns_add(struct mfd_netns *netns, uint32_t index, int fd);
static int held_back_netns_enter(struct mfd_netns *netns, int fd);
static int held_back(unsigned id);

#define mfd_spawn(request, result) held_back_spawn(request, result)
#define mfd_listening_open(all, netns, request, index)                                             \
    local_listening_open(all, netns, request, index)
#define mfd_netns_add(netns, index, fd) held_back_netns_add(netns, index, fd)
#define mfd_netns_enter(netns, fd) held_back_netns_enter(netns, fd)
#define setfsuid(uid) held_back(uid)
#define setfsgid(gid) held_back(gid)
#include "../control.c"
#undef mfd_spawn
#undef mfd_listening_open
#undef mfd_netns_enter
#undef mfd_netns_add
#undef setfsuid
#undef setfsgid

#define PACKETS_MAX 64
#define WATCHED_FDS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    KIND_NULL,
    KIND_TABLE,
    KIND_BLOCK,
    KIND_TALLY
};

static int held_back_spawn(const struct mfd_spawn_request *request,
                           struct mfd_spawn_result *ret_result)
{
    if (request->view->argv[0] == NULL || strlen(request->view->file) > request->view->size)
        abort();
    *ret_result =
        (struct mfd_spawn_result){.listener_fd = -1, .stage = MFD_STAGE_EXEC, .error = EPERM};
    return -EPERM;
}

static int held_back(unsigned id)
{
    return (int)id;
}

static int held_back_netns_enter(struct mfd_netns *netns, int fd)
{
    (void)netns;
    return fd < 0 || fcntl(fd, F_GETFD) >= 0 ? -EPERM : -EBADF;
}

static int held_back_netns_add(struct mfd_netns *netns, uint32_t index, int fd)
{
    (void)netns;
    return index < MFD_NETNS_MAX && fcntl(fd, F_GETFD) >= 0 ? -EPERM : -EINVAL;
}

static int local_listening_open(struct mfd_listening_sockets *all, const struct mfd_netns *netns,
                                const struct mfd_listen *request, uint32_t *ret_index)
{
    struct mfd_listen local = *request;

    local.netns = MFD_NETNS_OWN;
    local.address.port = 0;
    memcpy(local.address.bytes, (const uint8_t[16]){127, 0, 0, 1}, sizeof(local.address.bytes));
    if (local.address.family == AF_INET6)
        memcpy(local.address.bytes, &in6addr_loopback, sizeof(local.address.bytes));
    return mfd_listening_open(all, netns, &local, ret_index);
}

static int table_file(void)
{
    const struct mfd_rule rule = {
        .last_port = 65535, .verdict = MFD_REDIRECT, .protocol = IPPROTO_TCP};
    const struct mfd_upstream upstream = {.balance = MFD_ROUND_ROBIN, .n_endpoints = 1};
    const struct mfd_endpoint endpoint = {.address = {.family = AF_INET, .bytes = {127}},
                                          .weight = 1};

    return mfd_routes_compile(&rule, 1, &upstream, 1, &endpoint, 1);
}

static int block_file(void)
{
    static const char strings[] = "\0/bin/false\0false"; /* with the literal's own NUL */
    const struct mfd_program program = {
        .magic = MFD_PROGRAM_MAGIC, .n_argv = 1, .strings_size = sizeof(strings)};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (fd < 0 || write(fd, &program, sizeof(program)) < 0 ||
        write(fd, strings, sizeof(strings)) < 0)
        abort();
    return fd;
}

static int tally_file(void)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, 16) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
        abort();
    return fd;
}

static int file_of(unsigned kind)
{
    switch (kind) {
    case KIND_TABLE:
        return table_file();
    case KIND_BLOCK:
        return block_file();
    case KIND_TALLY:
        return tally_file();
    default:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    }
}

static void send_to(int channel, uint8_t files, const uint8_t *data, size_t size)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    union {
        struct cmsghdr align;
        uint8_t room[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    unsigned n = files >> 6;
    int fds[3];

    for (unsigned i = 0; i < n; i++)
        fds[i] = file_of(((unsigned)files >> (4 - 2 * i)) & 3u);
    if (n > 0) {
        struct cmsghdr *rights;

        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, n * sizeof(int));
    }
    (void)sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    for (unsigned i = 0; i < n; i++)
        (void)close(fds[i]);
}

static void drain(int channel)
{
    uint8_t room[512];

    while (recv(channel, room, sizeof(room), MSG_DONTWAIT) > 0)
        continue;
}

static unsigned count_open(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < WATCHED_FDS; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static struct mfd_agent agent;
static struct mfd_stats stats;

static void end_agent(void)
{
    struct mfd_agent *self = &agent;

    mfd_asks_default_all(self);
    for (uint32_t i = 0; i < self->listening.n; i++)
        (void)mfd_listening_close(&self->listening, i);
    mfd_target_forget_all();
    mfd_routes_unmap(self->table);
    if (self->tally != NULL)
        (void)munmap(self->tally, self->tally_size);
    free(self->cursors);
    free(self->cgroup.path);
    mfd_close_at(&self->cgroup.fd);
    mfd_close_at(&self->control.fd);
}

static void ask_something(void)
{
    const struct mfd_attempt attempt = {
        .call = {.listener = -1, .call = {.args = {UINT32_MAX}}},
        .asked = {.family = AF_INET, .bytes = {127}},
        .rule = MFD_ANY,
    };

    (void)mfd_asks_put(&agent, &attempt, 1);
    (void)mfd_asks_put(&agent, &attempt, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned before = count_open();
    int channel[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
        abort();
    agent = (struct mfd_agent){
        .control.fd = channel[0], .stats = &stats, .stats_fd = -1, .cgroup.fd = -1};
    agent.children.none = true;
    ask_something();
    for (unsigned i = 0; i < PACKETS_MAX && size >= 3 && agent.control.fd >= 0; i++) {
        uint8_t files = data[0];
        size_t length = (size_t)data[1] | (size_t)data[2] << 8;

        if (length > size - 3)
            length = size - 3;

        if (length > 0) { /* an empty packet is the end of a channel */
            send_to(channel[1], files, data + 3, length);
            mfd_control_receive(&agent);
        }
        data += 3 + length;
        size -= 3 + length;
        if (i % 8 == 7)
            drain(channel[1]);
        if (agent.control.full)
            mfd_control_flush(&agent);
    }
    (void)close(channel[1]);
    if (agent.control.fd >= 0)
        mfd_control_receive(&agent); /* the end of it */
    end_agent();
    if (count_open() != before)
        abort();
    return 0;
}
