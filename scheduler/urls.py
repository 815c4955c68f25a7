from __future__ import annotations

from django.urls import path

from scheduler.views import (
    actions,
    again,
    alarms,
    arguments,
    calendar,
    downloads,
    files,
    log,
    main,
    pauses,
    probe,
    runs,
    schedule,
    slots,
    tasks,
    timeline,
)

app_name = "scheduler"
urlpatterns = [
    path("", main.index, name="index"),
    path("schedule/", schedule.schedule_task, name="schedule"),
    path("timeline/", timeline.timeline, name="timeline"),
    path("tasks/<int:pk>/", tasks.detail, name="task-detail"),
    path("tasks/<int:pk>/run/", actions.task_run, name="task-run"),
    path("tasks/<int:pk>/pause/", pauses.task_pause, name="task-pause"),
    path("tasks/<int:pk>/slots/", slots.task_slots, name="task-slots"),
    path("schedules/<int:pk>/pause/", pauses.schedule_pause, name="schedule-pause"),
    path("pause/", pauses.pause_all, name="pause"),
    path("alarms/", alarms.alarms, name="alarms"),
    path("alarms/dismiss/", alarms.alarms_dismiss, name="alarms-dismiss"),
    path("alarms/<int:pk>/dismiss/", alarms.alarm_dismiss, name="alarm-dismiss"),
    path("calendar/", calendar.calendar, name="calendar"),
    path("tasks/<int:pk>/arguments/", arguments.task_arguments, name="task-arguments"),
    path("runs/<int:pk>/", runs.detail, name="run-detail"),
    path("runs/<int:pk>/stop/", actions.run_stop, name="run-stop"),
    path("runs/<int:pk>/again/", actions.run_again, name="run-again"),
    path("runs/<int:pk>/again/change/", again.run_again_changed, name="run-again-changed"),
    path("runs/<int:pk>/archive/", actions.run_archive, name="run-archive"),
    path("runs/<int:pk>/delete/", actions.run_delete, name="run-delete"),
    path("runs/<int:pk>/log/", log.follow, name="run-log"),
    path("runs/<int:pk>/log/download/", downloads.log, name="run-log-download"),
    path("files/<uuid:pk>/", downloads.file, name="file"),
    path("files/<uuid:pk>/picture/", downloads.picture, name="file-picture"),
    path("files/<uuid:pk>/preview/", files.file_preview, name="file-preview"),
    path("probe/<str:token>/", probe.probe, name="probe"),
]
