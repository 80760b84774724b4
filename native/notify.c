/* notify.c - receive intercepted calls and answer them
 *
 * Theory of operation: each start of the service has its own filter and so its own listener; the
 * agent polls them all. A call is received, looked at, and answered exactly once:
 *   result    the call returns a value, or fails
 *   continue  the kernel carries the call out as if nobody had looked
 *   fd        a file is put into the target, and its number is the call's result, in one step
 * The last takes two wake-ups: the kernel has the target itself take the file, wakes it for that on whatever CPU is idle
 * (complete(), not on the agent's as SEND does), and the target wakes the agent again. On an otherwise idle machine that
 * is most of what socket() costs. In two steps, ADDFD and then SEND, socket() alone is faster, because the target comes
 * back; but socket() and connect() together are slower, up to twice: tried on Linux 6.18.
 *
 * A target that is killed meanwhile makes any of these fail with ENOENT: it is gone, nothing is owed
 * to it. All signals are blocked in this process, because a signal in the middle of ADDFD with SEND
 * can make the target's call return 0 (231 of 20,000 with a handler; seccomp_unotify(2) is silent).
 *
 * After the last process of a filter has exited RECV returns ENOENT for ever and poll says POLLHUP:
 * the listener is dropped then.
 * Source: seccomp_unotify(2), kernel/seccomp.c. */
#include <string.h>
#include <sys/ioctl.h>

#include "kernel.h"
#include "meshfd.h"

/* The kernel's structs may be longer than ours one day; they are asked for, and refused past this. */
#define NOTIF_ROOM 512

union request_room {
    struct seccomp_notif request;
    uint8_t room[NOTIF_ROOM];
};

/* mfd_notify_open - learn how large the kernel's records are
 * Return: 0; -ENOSYS without seccomp user notification; -EPROTO when the records outgrew us. */
int mfd_notify_open(struct mfd_notify *notify)
{
    *notify = (struct mfd_notify){0};
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &notify->sizes) < 0)
        return -errno;
    if (notify->sizes.seccomp_notif > NOTIF_ROOM || notify->sizes.seccomp_notif_resp > NOTIF_ROOM)
        return -EPROTO;
    return 0;
}

/* mfd_notify_add - serve one more filter; takes the listener over
 * Return: 0; -EBADF; -ENOSPC, and the listener closed, when MFD_LISTENERS_MAX are served. */
int mfd_notify_add(struct mfd_notify *notify, int listener_fd)
{
    if (listener_fd < 0)
        return -EBADF;
    if (notify->n_listeners == MFD_LISTENERS_MAX) {
        (void)close(listener_fd);
        return -ENOSPC;
    }
    /* Wake the target on our own CPU: it runs when we go to sleep. Linux 6.6; a refusal costs only
     * speed. */
    (void)ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                (unsigned long)SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    notify->listeners[notify->n_listeners++] = listener_fd;
    return 0;
}

/* mfd_notify_drop - the last process of a filter is gone, and with it all calls that waited here */
void mfd_notify_drop(struct mfd_agent *agent, unsigned index)
{
    struct mfd_notify *notify = &agent->notify;

    mfd_asks_forget(agent, notify->listeners[index]);
    mfd_waits_forget(agent, notify->listeners[index]);
    mfd_forbidden_forget(agent, notify->listeners[index]);
    mfd_class_forget();
    (void)close(notify->listeners[index]);
    notify->listeners[index] = notify->listeners[--notify->n_listeners];
}

/* mfd_notify_receive - take the next call off a listener that poll says is readable
 * Return: 0; -ENOENT when the target was killed before (nothing is owed); -errno. */
int mfd_notify_receive(struct mfd_notify *notify, unsigned index, struct mfd_notification *ret)
{
    union request_room room;

    memset(&room, 0, notify->sizes.seccomp_notif);
    if (ioctl(notify->listeners[index], SECCOMP_IOCTL_NOTIF_RECV, &room.request) < 0)
        return -errno;
    ret->received_ns = mfd_now_ns();
    ret->listener = notify->listeners[index];
    ret->id = room.request.id;
    ret->pid = (pid_t)room.request.pid;
    mfd_call_decode(&room.request, &ret->call);
    return 0;
}

/* mfd_notify_is_alive - does the target still wait?
 * True means that what was read under its pid before this check was its own. */
bool mfd_notify_is_alive(const struct mfd_notification *call)
{
    return ioctl(call->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->id) == 0;
}

static void answer(struct mfd_agent *agent, const struct mfd_notification *call, int result,
                   uint32_t flags)
{
    union {
        struct seccomp_notif_resp response;
        uint8_t room[NOTIF_ROOM];
    } room;

    memset(&room, 0, sizeof(room.response));
    room.response.id = call->id;
    room.response.val = result > 0 ? result : 0;
    room.response.error = result < 0 ? result : 0;
    room.response.flags = flags;
    if (ioctl(call->listener, SECCOMP_IOCTL_NOTIF_SEND, &room.response) < 0)
        agent->stats->vanished++;
}

/* mfd_answer - the call returns this; @result: a value, or -errno */
void mfd_answer(struct mfd_agent *agent, const struct mfd_notification *call, int result)
{
    answer(agent, call, result, 0);
}

void mfd_answer_continue(struct mfd_agent *agent, const struct mfd_notification *call)
{
    answer(agent, call, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

static int add_fd(const struct mfd_notification *call, int fd, uint32_t flags, int at_fd,
                  bool cloexec)
{
    struct seccomp_notif_addfd addfd = {
        .id = call->id,
        .flags = flags,
        .srcfd = (uint32_t)fd,
        .newfd = (uint32_t)at_fd,
        .newfd_flags = cloexec ? O_CLOEXEC : 0,
    };
    int added = ioctl(call->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &addfd);

    return added < 0 ? -errno : added;
}

/* mfd_answer_fd - put a file into the target; its number there is the call's result. What belongs to whom then:
 * birth.c, MOVE
 * Return: the number; -ENOENT when the target is gone; another -errno (EMFILE): not answered yet. */
int mfd_answer_fd(const struct mfd_notification *call, int fd, bool cloexec)
{
    return add_fd(call, fd, SECCOMP_ADDFD_FLAG_SEND, 0, cloexec);
}

/* mfd_give_fd - put a file into the target at the lowest free number; does not answer
 * Return: the number; -ENOENT when the target is gone; another -errno (EMFILE). */
int mfd_give_fd(const struct mfd_notification *call, int fd, bool cloexec)
{
    return add_fd(call, fd, 0, 0, cloexec);
}

/* mfd_replace_fd - put a file at an fd number of the target, as dup2(2) would; does not answer
 * Return: 0; -ENOENT when the target is gone; -errno. */
int mfd_replace_fd(const struct mfd_notification *call, int fd, int at_fd, bool cloexec)
{
    int added = add_fd(call, fd, SECCOMP_ADDFD_FLAG_SETFD, at_fd, cloexec);

    return added < 0 ? added : 0;
}
