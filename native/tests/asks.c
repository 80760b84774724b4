/* Asked calls: each is reported and ends exactly once, by its verdict, its deadline or its listener's end.
 *
 * The calls belong to a listener that does not exist, so that every answer finds its target gone; what
 * is answered to a real one the live tests see. */
#include "agents.h"

/* One that could be connected: only such a one is asked about. */
static int tcp_socket(void)
{
    static int fd = -1;

    if (fd < 0)
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    NEED(fd >= 0);
    return fd;
}

static struct mfd_attempt attempt_at(uint64_t received_ns, int listener)
{
    return (struct mfd_attempt){
        .call = {.listener = listener,
                 .pid = getpid(),
                 .received_ns = received_ns,
                 .call = {.kind = MFD_CALL_CONNECT, .args = {(uint64_t)tcp_socket()}}},
        .asked = address_of("127.66.0.1", 80),
        .rule = 3,
    };
}

static void ask(uint64_t received_ns, int listener)
{
    struct mfd_attempt attempt = attempt_at(received_ns, listener);

    (void)mfd_asks_put(&agent, &attempt, 1);
}

static uint64_t next_call(int supervisor_fd)
{
    union report report = {0};

    CHECK_EQ(next_report(supervisor_fd, &report), MFD_MSG_CALL);
    return report.call.call;
}

static void answer(uint64_t call, uint32_t verdict, uint32_t n_endpoints)
{
    struct mfd_verdict_msg message = {
        .call = call, .verdict = verdict, .n_endpoints = n_endpoints, .error = UINT32_MAX};

    mfd_asks_answer(&agent, &message);
}

static void a_verdict_ends_the_call_it_names(void)
{
    int supervisor_fd = open_agent();
    uint64_t calls[3];

    for (unsigned i = 0; i < 3; i++) {
        ask(0, -1);
        calls[i] = next_call(supervisor_fd);
        CHECK(i == 0 || calls[i] != calls[i - 1]);
    }
    CHECK_EQ(agent_stats.asks, 3);
    answer(calls[1], MFD_PASS, 0);
    CHECK_EQ(agent_stats.asks, 2);
    answer(calls[1], MFD_PASS, 0); /* late */
    answer(0, MFD_PASS, 0);
    answer(UINT64_MAX, MFD_DENY, 0);
    CHECK_EQ(agent_stats.asks, 2);
    answer(calls[0], MFD_DENY, 0);
    answer(calls[2], MFD_REDIRECT, UINT32_MAX); /* more endpoints than a verdict holds */
    CHECK_EQ(agent_stats.asks, 0);
    CHECK_EQ(agent_stats.asked, 3);
    CHECK_EQ(mfd_asks_next_ns(&agent.asks), (long long)UINT64_MAX);
    close_agent(supervisor_fd);
}

static void deadlines_give_the_default(void)
{
    int supervisor_fd = open_agent();
    union report report;

    agent.ask_timeout_ms = 5;
    ask(2 * MFD_NS_PER_MS, -1);
    ask(1 * MFD_NS_PER_MS, -1);
    (void)next_call(supervisor_fd);
    (void)next_call(supervisor_fd);
    CHECK_EQ(mfd_asks_next_ns(&agent.asks), 6 * MFD_NS_PER_MS);
    mfd_asks_expire(&agent, 6 * MFD_NS_PER_MS - 1);
    CHECK_EQ(agent_stats.asks, 2);
    mfd_asks_expire(&agent, 6 * MFD_NS_PER_MS);
    CHECK_EQ(agent_stats.asks, 1);
    CHECK_EQ(next_report(supervisor_fd, &report), MFD_MSG_NOTICE);
    CHECK_EQ(report.notice.notice, MFD_NOTICE_ASK_TIMEOUT);
    CHECK_EQ(mfd_asks_next_ns(&agent.asks), 7 * MFD_NS_PER_MS);
    mfd_asks_default_all(&agent);
    CHECK_EQ(agent_stats.asks, 0);
    CHECK_EQ(next_report(supervisor_fd, &report), 0); /* of each kind one a spawn */
    close_agent(supervisor_fd);
}

static void one_too_many_is_not_kept(void)
{
    int supervisor_fd = open_agent();
    union report report;

    for (unsigned i = 0; i < MFD_ASKS_MAX; i++) {
        ask(i, -1);
        (void)next_call(supervisor_fd);
    }
    ask(0, -1);
    CHECK_EQ(agent_stats.asks, MFD_ASKS_MAX);
    CHECK_EQ(next_report(supervisor_fd, &report), MFD_MSG_NOTICE);
    CHECK_EQ(report.notice.notice, MFD_NOTICE_ASK_FULL);
    mfd_asks_default_all(&agent);
    CHECK_EQ(agent_stats.asks, 0);
    close_agent(supervisor_fd);
}

static void a_call_that_cannot_be_reported_is_not_kept(void)
{
    int supervisor_fd = open_agent();

    (void)fill_channel();
    ask(0, -1);
    CHECK_EQ(agent_stats.asks, 0);
    close_agent(supervisor_fd);
}

static void the_calls_of_a_listener_go_with_it(void)
{
    int supervisor_fd = open_agent();

    ask(0, 1000);
    ask(0, 1001);
    ask(0, 1000);
    mfd_asks_forget(&agent, 1000);
    CHECK_EQ(agent_stats.asks, 1);
    mfd_asks_forget(&agent, 1001);
    CHECK_EQ(agent_stats.asks, 0);
    close_agent(supervisor_fd);
}

int main(void)
{
    a_verdict_ends_the_call_it_names();
    deadlines_give_the_default();
    one_too_many_is_not_kept();
    a_call_that_cannot_be_reported_is_not_kept();
    the_calls_of_a_listener_go_with_it();
    return check_result();
}
