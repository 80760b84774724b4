/* asks.c - calls that wait for the supervisor's verdict
 *
 * Theory of operation: a connect() whose route says `ask` is put here, address and all, and reported;
 * the agent goes on serving others. The supervisor's verdict names the call by number. A call whose
 * deadline passes, and any call when the supervisor is gone, gets the default that SETUP named: it
 * passes, or fails with ECONNREFUSED. A target that was killed meanwhile is noticed when it is answered
 * (the kernel says ENOENT), and all calls of a filter are forgotten with its listener.
 *
 * While a call waits, the program sleeps as in any connect(), but only a fatal signal wakes it
 * (WAIT_KILLABLE_RECV); README, limits.
 * Limits: MFD_ASKS_MAX calls; more get the default at once. */
#include "meshfd.h"

static void free_slot(struct mfd_agent *agent, struct mfd_ask *ask)
{
    ask->call = 0;
    agent->asks.n--;
    agent->stats->asks = agent->asks.n;
}

/* It no longer waits when it is answered: whoever has the answer may look. */
static void resume(struct mfd_agent *agent, struct mfd_ask *ask,
                   const struct mfd_decision *decision)
{
    struct mfd_attempt attempt = ask->attempt;

    free_slot(agent, ask);
    mfd_connect_resume(agent, &attempt, decision);
}

/* mfd_asks_default - what happens to a call without a verdict */
void mfd_asks_default(const struct mfd_agent *agent, struct mfd_decision *ret_decision)
{
    *ret_decision = (struct mfd_decision){
        .verdict = (agent->flags & MFD_SETUP_ASK_OPEN) != 0 ? MFD_PASS : MFD_DENY,
        .error = ECONNREFUSED,
    };
}

static struct mfd_ask *find_slot(struct mfd_asks *asks, uint64_t call)
{
    for (unsigned i = 0; i < MFD_ASKS_MAX; i++)
        if (asks->slots[i].call == call)
            return &asks->slots[i];
    return NULL;
}

/* mfd_asks_put - have the supervisor decide this call
 * @cookie: SO_COOKIE of its socket
 * Return: 0; -EAGAIN when it cannot be asked. */
int mfd_asks_put(struct mfd_agent *agent, const struct mfd_attempt *attempt, uint64_t cookie)
{
    struct mfd_ask *ask = find_slot(&agent->asks, 0);
    struct mfd_call message = {
        .call = ++agent->asks.last_call,
        .pid = (uint32_t)attempt->call.pid,
        .rule = attempt->rule,
        .cookie = cookie,
        .asked = attempt->asked,
    };

    if (ask == NULL || agent->leave != MFD_STAY ||
        mfd_control_report(agent, &message, MFD_MSG_CALL, sizeof(message)) < 0) {
        mfd_control_notice(agent, MFD_NOTICE_ASK_FULL, attempt->call.pid, 0, &attempt->asked,
                           MFD_ANY);
        return -EAGAIN;
    }
    *ask = (struct mfd_ask){
        .call = message.call,
        .deadline_ns = attempt->call.received_ns + agent->ask_timeout_ms * MFD_NS_PER_MS,
        .attempt = *attempt,
    };
    agent->stats->asked++;
    agent->stats->asks = ++agent->asks.n;
    return 0;
}

/* mfd_asks_forget_rules - the route table is replaced: calls that wait are counted for none of its rules */
void mfd_asks_forget_rules(struct mfd_asks *asks)
{
    for (unsigned i = 0; asks->n > 0 && i < MFD_ASKS_MAX; i++)
        asks->slots[i].attempt.rule = MFD_ANY;
}

static void read_verdict(const struct mfd_verdict_msg *verdict, struct mfd_decision *ret)
{
    struct mfd_candidates *candidates = &ret->candidates;

    *ret = (struct mfd_decision){.verdict = MFD_DENY, .error = ECONNREFUSED};
    if (verdict->verdict == MFD_PASS || verdict->verdict == MFD_REDIRECT)
        ret->verdict = verdict->verdict;
    if (verdict->error > 0 && verdict->error < 4096)
        ret->error = (int)verdict->error;
    for (unsigned i = 0; i < verdict->n_endpoints && i < MFD_ENDPOINTS_MAX; i++)
        if (mfd_endpoint_is_valid(&verdict->endpoints[i]))
            candidates->endpoints[candidates->n++] = &verdict->endpoints[i];
}

/* mfd_asks_answer - a verdict came; one for a call that is no longer known is late, and ignored */
void mfd_asks_answer(struct mfd_agent *agent, const struct mfd_verdict_msg *verdict)
{
    struct mfd_ask *ask = verdict->call == 0 ? NULL : find_slot(&agent->asks, verdict->call);
    struct mfd_decision decision;

    if (ask == NULL)
        return;
    read_verdict(verdict, &decision);
    resume(agent, ask, &decision);
}

/* mfd_asks_expire - give the default to the calls that are due */
void mfd_asks_expire(struct mfd_agent *agent, uint64_t now_ns)
{
    struct mfd_decision decision;

    mfd_asks_default(agent, &decision);
    for (unsigned i = 0; agent->asks.n > 0 && i < MFD_ASKS_MAX; i++) {
        struct mfd_ask *ask = &agent->asks.slots[i];

        if (ask->call == 0 || ask->deadline_ns > now_ns)
            continue;
        if (agent->leave == MFD_STAY)
            mfd_control_notice(agent, MFD_NOTICE_ASK_TIMEOUT, ask->attempt.call.pid, 0,
                               &ask->attempt.asked, MFD_ANY);
        resume(agent, ask, &decision);
    }
}

/* mfd_asks_default_all - nobody will answer any more */
void mfd_asks_default_all(struct mfd_agent *agent)
{
    mfd_asks_expire(agent, UINT64_MAX);
}

/* mfd_asks_forget - the listener is about to be closed, its targets are gone */
void mfd_asks_forget(struct mfd_agent *agent, int listener)
{
    for (unsigned i = 0; agent->asks.n > 0 && i < MFD_ASKS_MAX; i++) {
        struct mfd_ask *ask = &agent->asks.slots[i];

        if (ask->call != 0 && ask->attempt.call.listener == listener)
            free_slot(agent, ask);
    }
}

/* mfd_asks_next_ns - the nearest deadline; UINT64_MAX: nothing waits */
uint64_t mfd_asks_next_ns(const struct mfd_asks *asks)
{
    uint64_t next = UINT64_MAX;

    for (unsigned i = 0; asks->n > 0 && i < MFD_ASKS_MAX; i++)
        if (asks->slots[i].call != 0 && asks->slots[i].deadline_ns < next)
            next = asks->slots[i].deadline_ns;
    return next;
}
