/* identity.c - be the program for the length of one call
 *
 * Theory of operation: where the agent does for a program what depends on who does it (standin.c connects to a
 * unix socket: the file's mode decides, and the server asks who it was), it does so as the program is at that
 * moment: user, group, supplementary groups and capabilities, of which it may have dropped some since it was
 * started. Then it is itself again. An agent without privileges is like its programs already, and can be
 * nobody else; then a difference (a setuid program) stays, which never widens anybody's rights.
 *
 * Real and saved ids stay the agent's, so that there is a way back, and no program may signal or trace it
 * meanwhile. A change of identity makes a process dumpable where fs.suid_dumpable says so: that is put right.
 * Capabilities of another user namespace are none here.
 * Limits: MFD_GROUPS_MAX supplementary groups; of a program's further ones it has no use. An agent with more
 * cannot change.
 *
 * What is made for a program belongs to it: files, sockets among them, are the file system user's (setfsuid) of who
 * makes them. For that alone the agent takes on no more than that, and only where the program is another than it
 * was started as. /proc/PID, for a microsecond, tells the effective user, whose that is as well; of a
 * program that calls setfsuid() itself a socket is the effective user's.
 * Source: credentials(7), capabilities(7), setfsuid(2), prctl(2) PR_SET_DUMPABLE; fs/proc/base.c
 * (task_dump_owner). */
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "meshfd.h"

#define CAPABILITY_WORDS _LINUX_CAPABILITY_U32S_3

struct capabilities {
    struct __user_cap_header_struct header;
    struct __user_cap_data_struct words[CAPABILITY_WORDS];
};

static int read_capabilities(struct capabilities *ret)
{
    ret->header = (struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capget, &ret->header, ret->words) < 0 ? -errno : 0;
}

static uint64_t effective_of(const struct capabilities *capabilities)
{
    return (uint64_t)capabilities->words[1].effective << 32 | capabilities->words[0].effective;
}

static uint64_t permitted_of(const struct capabilities *capabilities)
{
    return (uint64_t)capabilities->words[1].permitted << 32 | capabilities->words[0].permitted;
}

/* Of these, those that are permitted become effective. */
static int set_effective(uint64_t effective)
{
    struct capabilities capabilities;
    int error = read_capabilities(&capabilities);

    if (error < 0)
        return error;
    effective &= permitted_of(&capabilities);
    if (effective == effective_of(&capabilities))
        return 0;
    capabilities.words[0].effective = (uint32_t)effective;
    capabilities.words[1].effective = (uint32_t)(effective >> 32);
    return syscall(SYS_capset, &capabilities.header, capabilities.words) < 0 ? -errno : 0;
}

static int read_own(struct mfd_identity *ret)
{
    struct capabilities capabilities;
    int error = read_capabilities(&capabilities);
    int n = getgroups(MFD_GROUPS_MAX, ret->groups);

    if (error < 0)
        return error;
    if (n < 0)
        return -errno;
    ret->n_groups = (unsigned)n;
    ret->uid = geteuid();
    ret->gid = getegid();
    ret->fs_uid = (uid_t)setfsuid((uid_t)-1); /* changes nothing, and tells */
    ret->fs_gid = (gid_t)setfsgid((gid_t)-1);
    ret->capabilities = effective_of(&capabilities);
    return 0;
}

static bool has_same_groups(const struct mfd_identity *a, const struct mfd_identity *b)
{
    return a->n_groups == b->n_groups &&
           memcmp(a->groups, b->groups, a->n_groups * sizeof(a->groups[0])) == 0;
}

static bool is_same(const struct mfd_identity *a, const struct mfd_identity *b)
{
    return a->uid == b->uid && a->gid == b->gid && a->fs_uid == b->fs_uid &&
           a->fs_gid == b->fs_gid && a->capabilities == b->capabilities && has_same_groups(a, b);
}

/* Return: 0 or -errno: somewhere in between. */
static int become(const struct mfd_identity *other, const struct mfd_identity *now)
{
    if (!has_same_groups(other, now) && setgroups(other->n_groups, other->groups) < 0)
        return -errno;
    if (setegid(other->gid) < 0 || seteuid(other->uid) < 0)
        return -errno;
    (void)setfsgid(other->fs_gid);
    (void)setfsuid(other->fs_uid);
    return set_effective(other->capabilities);
}

/* mfd_identity_leave - be oneself again */
void mfd_identity_leave(const struct mfd_identity_change *change)
{
    const struct mfd_identity *own = &change->own;

    if (!change->made)
        return;
    (void)set_effective(UINT64_MAX);
    (void)become(own, &change->other);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* mfd_identity_enter - be as the thread of this call is, until mfd_identity_leave(), which is called in any case
 * Return: 0, also when we can be nobody else; -ESRCH, -EPERM and the like: nothing is changed. */
int mfd_identity_enter(const struct mfd_notification *call, struct mfd_identity_change *ret)
{
    int error = mfd_target_identity(call->pid, &ret->other);

    ret->made = false;
    if (error == 0 && !mfd_notify_is_alive(call))
        error = -ESRCH;
    if (error == 0)
        error = read_own(&ret->own);
    if (error < 0 || is_same(&ret->own, &ret->other))
        return error;
    if ((ret->own.capabilities & (1ULL << CAP_SETUID)) == 0 ||
        (ret->own.capabilities & (1ULL << CAP_SETGID)) == 0)
        return 0;
    ret->made = true;
    error = become(&ret->other, &ret->own);
    if (error < 0) {
        mfd_identity_leave(ret);
        ret->made = false;
    }
    return error;
}

/* mfd_identity_leave_files - make files as before
 * @own: what mfd_identity_enter_files() told */
void mfd_identity_leave_files(const struct mfd_file_identity *own)
{
    if (!own->changed)
        return;
    (void)setfsgid(own->gid);
    (void)setfsuid(own->uid);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* Whose our own files are. That changes for no longer than until what has changed it is left again, so it is asked
 * once. */
static struct mfd_file_identity own_files(void)
{
    static struct mfd_file_identity own;
    static bool is_known;

    if (!is_known) {
        own.uid = (uid_t)setfsuid((uid_t)-1); /* changes nothing, and tells */
        own.gid = (gid_t)setfsgid((gid_t)-1);
        is_known = true;
    }
    return own;
}

/* mfd_identity_enter_files - make files as this thread does, until mfd_identity_leave_files(); without privilege, or
 * where it is gone, as ever
 * @ret_own: whose they were */
void mfd_identity_enter_files(pid_t pid, struct mfd_file_identity *ret_own)
{
    struct stat owner;
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/%d", pid);
    *ret_own = own_files();
    ret_own->changed =
        stat(path, &owner) == 0 && (owner.st_uid != ret_own->uid || owner.st_gid != ret_own->gid);
    if (!ret_own->changed)
        return;
    (void)setfsgid(owner.st_gid);
    (void)setfsuid(owner.st_uid);
}
