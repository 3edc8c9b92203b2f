/* SPDX-License-Identifier: MIT */
/*
 * anon: parent and child share memory that has no name.
 *
 *     parent               the page               child
 *     writes text   --->  [  text  ]  --->   waits, then reads text
 *     reads reply   <---  [  reply ]  <---   writes reply
 *
 *     ./anon procmaps.c
 *     ./anon -private
 *
 * mmap(2), fork(2), sigwait(3), sem_overview(7)
 */
#define _GNU_SOURCE
#include <err.h>
#include <getopt.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;

struct page {
    char text[100], reply[100];
    sem_t written; /* posted when the parent has written text */
};
static struct page *page;
static sigset_t usr1;
static enum { UNKNOWN, SIGNAL, SEMAPHORE, SLEEP, NONE } notify;

static void run_parent(pid_t child, const char *path);
static long count_lines(const char *path);
static void run_child(pid_t parent);
static void say(const char *process, const char *does, const char *text);
static const char *parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    const char *path = parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0); /* fork() copies no unprinted output */
    page = mmap(NULL, sizeof *page, prot, flags | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");
    if (sem_init(&page->written, 1, 0) == -1) err(1, "sem_init");
    strcpy(page->text, "from before the fork");
    say("parent", "writes", page->text);

    /* A blocked signal stays pending until the child waits for it. */
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    if (sigprocmask(SIG_BLOCK, &usr1, NULL) == -1) err(1, "sigprocmask");

    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) run_child(parent);
    if (child > 0) run_parent(child, path);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void run_parent(pid_t child, const char *path)
{
    /* Without notification, chance decides. Here the child is always first. */
    if (notify == NONE && waitid(P_PID, child, NULL, WEXITED | WNOWAIT) == -1)
        err(1, "waitid");
    if (path == NULL) strcpy(page->text, "greetings from your parent");
    if (path != NULL) sprintf(page->text, "%ld lines", count_lines(path));
    say("parent", "writes", page->text);
    if (notify == SIGNAL && kill(child, SIGUSR1) == -1) err(1, "kill");
    if (notify == SEMAPHORE && sem_post(&page->written) == -1)
        err(1, "sem_post");

    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid");
    if (WIFSIGNALED(status))
        errx(1, "the child was killed: %s", strsignal(WTERMSIG(status)));
    if (status != 0) exit(1); /* the child has printed the reason */
    say("parent", "reads", page->reply);
}

static long count_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) err(1, "%s", path);
    long lines = 0;
    for (int c = getc(file); c != EOF; c = getc(file))
        if (c == '\n') lines++;
    if (ferror(file)) err(1, "%s", path);
    fclose(file);
    return lines;
}

static void run_child(pid_t parent)
{
    /* The child ends with its parent, so it never waits for a dead one. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (getppid() != parent) exit(1);

    int number; /* of the signal */
    if (notify == SIGNAL && sigwait(&usr1, &number) != 0) errx(1, "sigwait");
    /* The parent posts its own copy of a private semaphore, so give up soon. */
    if (notify == SEMAPHORE && flags == MAP_PRIVATE) alarm(2);
    if (notify == SEMAPHORE && sem_wait(&page->written) == -1)
        err(1, "sem_wait");
    if (notify == SLEEP) sleep(1); /* and hope */

    say("child", "finds", page->text);
    strcpy(page->reply, "thank you");
    say("child", "writes", page->reply);
}

static void say(const char *process, const char *does, const char *text)
{
    printf("[%s %d] %s \"%.99s\" at %p\n", process, getpid(), does, text,
           (const void *)text);
}

static const char usage[] =
    "usage: anon [--private] [--notify=signal|semaphore|sleep|none] [FILE]";

static const char *parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"notify", required_argument, NULL, 'n'},
        {"private", no_argument, &flags, MAP_PRIVATE},
        {0}};
    const char *way = "signal";
    for (int option = 0; option != -1;) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == '?') errx(2, "%s", usage);
        if (option == 'n') way = optarg;
    }
    if (strcmp(way, "signal") == 0) notify = SIGNAL;
    if (strcmp(way, "semaphore") == 0) notify = SEMAPHORE;
    if (strcmp(way, "sleep") == 0) notify = SLEEP;
    if (strcmp(way, "none") == 0) notify = NONE;
    if (notify == UNKNOWN || argc > optind + 1) errx(2, "%s", usage);
    return argv[optind];
}
