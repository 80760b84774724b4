/* account.c - count and report what was decided
 *
 * Counts are made before the answer: whoever has that may look. Reports are sent after it, when somebody
 * wants them (MFD_SETUP_EVENTS); one that finds the channel full is dropped and counted. */
#include "meshfd.h"

/* mfd_account_time - the time until now, just before the answer: with it the target may run on our CPU at once
 * Return: nanoseconds. */
uint64_t mfd_account_time(struct mfd_agent *agent, const struct mfd_notification *call)
{
    uint64_t nanoseconds = mfd_now_ns() - call->received_ns;

    mfd_stats_time(agent->stats->connect_ns, nanoseconds);
    return nanoseconds;
}

/* mfd_account_unseen - a call is left alone, or fails in a strict service, because it could not be looked into
 * @error: of looking; a mistake of the program's, which the kernel tells it, is none of ours
 * @asked: NULL when that is not known */
void mfd_account_unseen(struct mfd_agent *agent, const struct mfd_notification *call, int error,
                        const struct mfd_address *asked)
{
    enum mfd_notice notice = MFD_NOTICE_EXHAUSTED;

    if (call->pid == 0) {
        notice = MFD_NOTICE_FOREIGN_PID;
        error = 0;
    } else if (error == -EPERM) {
        notice = MFD_NOTICE_UNREADABLE;
    } else if (error != -EMFILE && error != -ENFILE && error != -ENOMEM) {
        return;
    }
    agent->stats->out_of_reach++;
    mfd_control_notice(agent, notice, call->pid, -error, asked, MFD_ANY);
}

/* mfd_account_rule - a rule of the route table has decided */
void mfd_account_rule(struct mfd_agent *agent, uint32_t rule)
{
    if (rule != MFD_ANY && agent->tally != NULL)
        agent->tally[rule]++;
}

/* mfd_account_outcome - candidates were tried */
void mfd_account_outcome(struct mfd_agent *agent, const struct mfd_candidates *candidates,
                         const struct mfd_outcome *outcome)
{
    if (outcome->attempts > 1)
        agent->stats->retried += outcome->attempts - 1;
    if (candidates->cursor != NULL)
        ++*candidates->cursor;
    if (outcome->used < 0 || (outcome->error != 0 && outcome->error != EINPROGRESS)) {
        agent->stats->refused++;
        return;
    }
    agent->stats->redirected++;
    if (candidates->tallies[outcome->used] != NULL)
        ++*candidates->tallies[outcome->used];
}

static bool is_reported(const struct mfd_agent *agent)
{
    return (agent->flags & MFD_SETUP_EVENTS) != 0;
}

static void report(struct mfd_agent *agent, struct mfd_decided *message)
{
    if (mfd_control_report(agent, message, MFD_MSG_DECIDED, sizeof(*message)) < 0)
        agent->stats->events_lost++;
}

/* mfd_account_denied - report that a call fails with this errno */
void mfd_account_denied(struct mfd_agent *agent, const struct mfd_attempt *attempt, int error,
                        uint64_t nanoseconds)
{
    struct mfd_decided message;

    if (!is_reported(agent))
        return;
    message = (struct mfd_decided){
        .pid = (uint32_t)attempt->call.pid,
        .verdict = MFD_DENY,
        .rule = attempt->rule,
        .error = (uint32_t)error,
        .nanoseconds = (uint32_t)nanoseconds,
        .asked = attempt->asked,
    };
    report(agent, &message);
}

/* mfd_account_redirected - report where a call was redirected to */
void mfd_account_redirected(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                            const struct mfd_candidates *candidates,
                            const struct mfd_outcome *outcome, uint64_t nanoseconds)
{
    struct mfd_decided message;

    if (outcome->used < 0)
        mfd_control_notice(agent, MFD_NOTICE_NO_ENDPOINT, attempt->call.pid, 0, &attempt->asked,
                           MFD_ANY);
    if (!is_reported(agent))
        return;
    message = (struct mfd_decided){
        .pid = (uint32_t)attempt->call.pid,
        .verdict = MFD_REDIRECT,
        .rule = attempt->rule,
        .error = (uint32_t)outcome->error,
        .attempts = outcome->attempts,
        .nanoseconds = (uint32_t)nanoseconds,
        .asked = attempt->asked,
    };
    if (outcome->used >= 0)
        message.given = *candidates->endpoints[outcome->used];
    report(agent, &message);
}
