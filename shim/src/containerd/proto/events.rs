//! What happens to tasks (`api/events/task.proto`).

use prost::{Message, Name};

use super::{Mount, Timestamp};

/// `containerd.events.TaskIO`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskIo {
    #[prost(string, tag = "1")]
    pub stdin: String,
    #[prost(string, tag = "2")]
    pub stdout: String,
    #[prost(string, tag = "3")]
    pub stderr: String,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
}

/// An event with its name and the topic under which it is published.
pub trait Event: Name {
    /// As containerd's subscribers filter.
    const TOPIC: &'static str;
}

/// Declares events: type, name on the wire, topic, fields.
macro_rules! events {
    ($( $(#[$doc:meta])* $name:ident $wire:literal $topic:literal { $( $(#[$kind:meta])* $field:ident : $type:ty, )* } )*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Message)]
        pub struct $name {
            $( $(#[$kind])* pub $field: $type, )*
        }

        impl Name for $name {
            const NAME: &'static str = $wire;
            const PACKAGE: &'static str = "containerd.events";
        }

        impl Event for $name {
            const TOPIC: &'static str = $topic;
        }
    )* };
}

events! {
    /// The container exists.
    TaskCreate "TaskCreate" "/tasks/create" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(string, tag = "2")]
        bundle: String,
        #[prost(message, repeated, tag = "3")]
        rootfs: Vec<Mount>,
        #[prost(message, optional, tag = "4")]
        io: Option<TaskIo>,
        #[prost(string, tag = "5")]
        checkpoint: String,
        #[prost(uint32, tag = "6")]
        pid: u32,
    }

    /// Its program runs.
    TaskStart "TaskStart" "/tasks/start" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(uint32, tag = "2")]
        pid: u32,
    }

    /// It is gone.
    TaskDelete "TaskDelete" "/tasks/delete" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(uint32, tag = "2")]
        pid: u32,
        #[prost(uint32, tag = "3")]
        exit_status: u32,
        #[prost(message, optional, tag = "4")]
        exited_at: Option<Timestamp>,
        /// Which exec; empty for the container itself.
        #[prost(string, tag = "5")]
        id: String,
    }

    /// A process of it ended. The id is the container's for its first process, else the exec's.
    TaskExit "TaskExit" "/tasks/exit" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(string, tag = "2")]
        id: String,
        #[prost(uint32, tag = "3")]
        pid: u32,
        #[prost(uint32, tag = "4")]
        exit_status: u32,
        #[prost(message, optional, tag = "5")]
        exited_at: Option<Timestamp>,
    }

    /// The kernel killed something in it for want of memory.
    TaskOom "TaskOOM" "/tasks/oom" {
        #[prost(string, tag = "1")]
        container_id: String,
    }

    /// A further process was described.
    TaskExecAdded "TaskExecAdded" "/tasks/exec-added" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(string, tag = "2")]
        exec_id: String,
    }

    /// A further process runs.
    TaskExecStarted "TaskExecStarted" "/tasks/exec-started" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(string, tag = "2")]
        exec_id: String,
        #[prost(uint32, tag = "3")]
        pid: u32,
    }

    /// It is frozen.
    TaskPaused "TaskPaused" "/tasks/paused" {
        #[prost(string, tag = "1")]
        container_id: String,
    }

    /// It is frozen no longer.
    TaskResumed "TaskResumed" "/tasks/resumed" {
        #[prost(string, tag = "1")]
        container_id: String,
    }

    /// Its state was written down.
    TaskCheckpointed "TaskCheckpointed" "/tasks/checkpointed" {
        #[prost(string, tag = "1")]
        container_id: String,
        #[prost(string, tag = "2")]
        checkpoint: String,
    }
}
