/* agents.h - an agent in this process, with the test at the other end of its channel */
#ifndef MESHFD_AGENTS_H
#define MESHFD_AGENTS_H

#include "check.h"

/* Room that a message of any type fits in. */
union report {
    struct mfd_header header;
    struct mfd_done done;
    struct mfd_exited exited;
    struct mfd_bound bound;
    struct mfd_decided decided;
    struct mfd_call call;
    struct mfd_notice_msg notice;
};

static struct mfd_agent agent; /* large, and there is one */
static struct mfd_stats agent_stats;

/* Returns the supervisor's end. */
static inline int open_agent(void)
{
    int channel[2];

    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) == 0);
    agent = (struct mfd_agent){
        .control.fd = channel[0], .stats = &agent_stats, .stats_fd = -1, .cgroup.fd = -1};
    agent_stats = (struct mfd_stats){0};
    agent.children.none = true;
    return channel[1];
}

static inline void close_agent(int supervisor_fd)
{
    (void)close(supervisor_fd);
    mfd_close_at(&agent.control.fd);
}

/* Type of the next report, 0: none waits. */
static inline uint16_t next_report(int supervisor_fd, union report *ret_report)
{
    ssize_t n = recv(supervisor_fd, ret_report, sizeof(*ret_report), MSG_DONTWAIT);

    if (n < 0)
        return 0;
    CHECK_EQ(n, ret_report->header.size);
    CHECK_EQ(ret_report->header.version, MFD_WIRE_VERSION);
    return ret_report->header.type;
}

/* Fill the channel with notices; returns how many there are. */
static inline unsigned fill_channel(void)
{
    struct mfd_plain message;
    unsigned n = 0;

    while (mfd_control_report(&agent, &message, MFD_MSG_NOTICE, sizeof(message)) == 0)
        n++;
    return n;
}

static inline void drain(int supervisor_fd, unsigned n)
{
    union report report;

    for (unsigned i = 0; i < n; i++)
        NEED(next_report(supervisor_fd, &report) == MFD_MSG_NOTICE);
}

#endif
